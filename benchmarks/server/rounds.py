"""Seconds that a round costs besides the clients' own training.

    python -m benchmarks.server.rounds [--case resnet50:5 ... --case tiny:1000] [--rounds 2] [--repeats 3]

Clients answer at once with a prepared reply, which the server parses from the bytes of a protobuf message; nothing is
evaluated. Contenders take turns, each does the same rounds; medians of repeats.

- Flower: `FedAvg.start()`.
- ours: the round loop with OrderedGrid, Replies and StreamingFedAvg, without checkpoints and with one after every
  round.
- of it parsing: what both spend in Flower's protobuf conversion.
- aggregation: `aggregate_train` alone on parsed replies. They share their bytes, which exceed the processor's caches,
  so that a hundred fit into memory.

Flower holds all replies of a round; its column stays empty where they do not fit into free memory.
"""

import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from benchmarks.server.prepared import (
    PreparedGrid,
    Unevaluated,
    WireReplies,
    members_of,
    model_arrays,
    record_of,
    reply_to,
)
from benchmarks.tools.command import run_command
from benchmarks.tools.in_process import identify
from benchmarks.tools.report import Stopwatch, report
from config.run_config import RunConfig
from server_app.callbacks import Callback
from server_app.callbacks.checkpoints import Checkpoints
from server_app.exchange import Exchange
from server_app.grid import OrderedGrid
from server_app.rounds import RoundLoop
from server_app.strategy import make_strategy
from simulation.capacity import memory_bytes

CASES = ("resnet50:5", "resnet50:20", "resnet50:100", "tiny:1000")
PACKAGES = ("flwr", "numpy", "safetensors")
COLUMNS = (
    "", "Flower, s", "ours, s", "with checkpoints, s", "of it parsing, s", "Flower / ours",
    "aggregation: Flower, s", "aggregation: ours, s", "aggregation: Flower / ours",
)  # fmt: skip
HELD = (
    2.5  # the most that Flower holds for one reply, in models, while the previous round's replies are still in memory
)


def flower_rounds(arrays: ArrayRecord, wire: WireReplies, clients: int, rounds: int) -> None:
    FedAvg(fraction_evaluate=0.0).start(PreparedGrid(clients, wire), arrays, num_rounds=rounds)


def our_rounds(
    arrays: ArrayRecord, wire: WireReplies, clients: int, rounds: int, checkpoints: Path | None = None
) -> None:
    config = RunConfig(strategy="fedavg", fraction_train=1.0, num_server_rounds=rounds)
    members = members_of(clients)
    grid = OrderedGrid(PreparedGrid(clients, wire), [member.node_id for member in members])
    callbacks: list[Callback] = [Checkpoints(checkpoints, config.to_flat(), "roll")] if checkpoints else []
    strategy = make_strategy(config)
    exchange = Exchange(grid, members, strategy, config)
    loop = RoundLoop(exchange, strategy, {"test": Unevaluated()}, config, callbacks)
    loop.run(ArrayRecord(dict(arrays)))  # which is emptied


def aggregation(strategy: Strategy, arrays: ArrayRecord, clients: int) -> float:
    """Seconds of one `aggregate_train`."""
    question = Message(RecordDict(), 1, "train")
    question.metadata.__dict__["_message_id"] = "question"
    replies = [reply_to(question, ArrayRecord(dict(arrays))) for _ in range(clients)]
    with Stopwatch() as watch:
        strategy.aggregate_train(1, replies)
    return watch.seconds


def measure(model: str, clients: int, rounds: int, repeats: int) -> list[float | str]:
    """One row of the table without its name."""
    identify()
    arrays = record_of(model_arrays(model))
    wire = WireReplies(arrays)
    held = HELD * clients * sum(len(array.data) for array in arrays.values())
    contenders: dict[str, Callable[[], None]] = {
        "flower": lambda: flower_rounds(arrays, wire, clients, rounds),
        "ours": lambda: our_rounds(arrays, wire, clients, rounds),
    }
    if held > (memory_bytes("MemAvailable") or 0):
        del contenders["flower"]
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoints"
        contenders["checkpoints"] = lambda: our_rounds(arrays, wire, clients, rounds, place)
        for _ in range(repeats):
            for name, run in contenders.items():
                wire.seconds = 0.0
                with Stopwatch() as watch:
                    run()
                times.setdefault(name, []).append(watch.seconds / rounds)
                times.setdefault("parsing", []).append(wire.seconds / rounds)
            for strategy in (FedAvg(), make_strategy(RunConfig(strategy="fedavg"))):
                times.setdefault(type(strategy).__name__, []).append(aggregation(strategy, arrays, clients))
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        median.get("flower", "too large"), median["ours"], median["checkpoints"], median["parsing"],
        median["flower"] / median["ours"] if "flower" in median else "",
        median["FedAvg"], median["StreamingFedAvg"], median["FedAvg"] / median["StreamingFedAvg"],
    ]  # fmt: skip


def main(
    case: Annotated[list[str] | None, typer.Option(help="Model and clients a round; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each contender in each repeat.")] = 2,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
) -> None:
    logging.disable(logging.WARNING)
    rows = []
    for name in case or CASES:
        model, clients = name.split(":")
        rows.append((f"{model}, {clients} clients", *measure(model, int(clients), rounds, repeats)))
    report("server seconds per round", COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
