"""Peak memory of the server, in models.

    python -m benchmarks.server.memory [--model resnet50] [--replies 5 --replies 40] [--rounds 2]

Each figure comes from a separate process: the peak of its resident memory (VmHWM) above what it holds after imports
and a first round with a tiny model, before the model is there, divided by the bytes of the model. That covers the
global model, the sums, and every reply that is held. The bytes of a reply are read from a file when the server asks for
them, so what Flower's transport needs to unpack it does not count, nor do replies that wait in the SuperLink; in a
simulation that is the same process and holds one more model for each.

- aggregation: train messages out, replies in, the new global model.
- whole rounds: with the global model loaded into a network as for evaluation, and ours with its checkpoints.

Ours: OrderedGrid, Replies and StreamingFedAvg, with replies that are all there at once, or arrive in the order of the
messages or in reverse. Flower: `FedAvg` and, for whole rounds, its `start()`.
"""

import gc
import logging
import multiprocessing
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg

from benchmarks.server.prepared import (
    ARRIVALS,
    FileReplies,
    PreparedGrid,
    Unevaluated,
    members_of,
    model_arrays,
    network,
    record_of,
)
from benchmarks.tools.command import run_command
from benchmarks.tools.report import report
from config.run_config import RunConfig
from learning.evaluation import Evaluation
from server_app.callbacks.checkpoints import Checkpoints
from server_app.exchange import Exchange
from server_app.grid import OrderedGrid
from server_app.rounds import RoundLoop
from server_app.strategy import make_strategy

PACKAGES = ("flwr", "numpy", "torch", "safetensors")
CONTENDERS = (*(f"ours, {arrival}" for arrival in ARRIVALS), "Flower's FedAvg")


class LoadedOnly(Unevaluated):
    """Loads the model as an evaluation does."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = network(model)

    def evaluate(self, arrays: ArrayRecord) -> Evaluation:
        self._model.load_state_dict(arrays.to_torch_state_dict())
        return super().evaluate(arrays)


def aggregate(contender: str, source: FileReplies, clients: int) -> None:
    """One aggregation, from configured messages to the new global model."""
    arrays = source.arrays()
    config = RunConfig(strategy="fedavg", fraction_train=1.0)
    grid = PreparedGrid(clients, source, contender.removeprefix("ours, ") if "ours" in contender else "at once")
    if "ours" in contender:
        members = members_of(clients)
        ordered = OrderedGrid(grid, [member.node_id for member in members])
        strategy = make_strategy(config)
        sent = Exchange(ordered, members, strategy, config).send(1, arrays)
        new = strategy.aggregate_train(1, sent.tally.good(sent.replies))
    else:
        fedavg = FedAvg(fraction_evaluate=0.0)
        messages = list(fedavg.configure_train(1, arrays, ConfigRecord(), grid))
        new = fedavg.aggregate_train(1, grid.send_and_receive(messages))
    if new[0] is None:
        raise RuntimeError("nothing was aggregated")


def whole_rounds(contender: str, source: FileReplies, clients: int, rounds: int, model: str) -> None:
    """Rounds with a model to evaluate, and ours with checkpoints."""
    arrays = source.arrays()
    grid = PreparedGrid(clients, source, contender.removeprefix("ours, ") if "ours" in contender else "at once")
    clean_set = LoadedOnly(model)
    if "ours" in contender:
        config = RunConfig(strategy="fedavg", fraction_train=1.0, num_server_rounds=rounds)
        members = members_of(clients)
        ordered = OrderedGrid(grid, [member.node_id for member in members])
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), config.to_flat(), "roll")
            strategy = make_strategy(config)
            exchange = Exchange(ordered, members, strategy, config)
            RoundLoop(exchange, strategy, {"test": clean_set}, config, [checkpoints]).run(arrays)
    else:

        def evaluate(_: int, new: ArrayRecord) -> None:
            clean_set.evaluate(new)

        FedAvg(fraction_evaluate=0.0).start(grid, arrays, num_rounds=rounds, evaluate_fn=evaluate)


def memory_kib(kind: str) -> int:
    """A line of this process's status: `VmRSS` (now) or `VmHWM` (the most so far), in KiB."""
    found = re.search(rf"{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {kind}")
    return int(found[1])


def peak_in_models(contender: str, clients: int, source: FileReplies, rounds: int, model: str) -> float:
    """Peak above idle, in models; `rounds` 0 measures an aggregation alone. Meant for a separate process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    logging.disable(logging.WARNING)

    def work(source: FileReplies, clients: int, model: str) -> None:
        if rounds:
            whole_rounds(contender, source, clients, rounds, model)
        else:
            aggregate(contender, source, clients)

    with tempfile.TemporaryDirectory() as folder:
        small = FileReplies.write(Path(folder) / "arrays", record_of(model_arrays("tiny")))
        work(small, 2, "tiny")  # loads the pages of code that a first round touches, which are not a round's memory
    gc.collect()
    idle = memory_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    work(source, clients, model)
    return (memory_kib("VmHWM") - idle) * 1024 / source.model_bytes


def in_fresh_process(function: Callable[..., float], *args: object) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main(
    model: Annotated[str, typer.Option(help="resnet18, resnet34, resnet50, or tiny.")] = "resnet50",
    replies: Annotated[list[int] | None, typer.Option(help="Replies in a round; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Whole rounds in one process.")] = 2,
) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = FileReplies.write(Path(folder) / "arrays", record_of(model_arrays(model)))
        for contender in CONTENDERS:
            for clients in replies or [5, 40]:
                peaks = [
                    in_fresh_process(peak_in_models, contender, clients, source, count, model) for count in (0, rounds)
                ]
                rows.append((contender, clients, *peaks))
    title = f"peak memory of the server above idle, in models of {source.model_bytes / 2**20:.1f} MiB ({model})"
    report(title, ("", "replies a round", "aggregation", "whole rounds"), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
