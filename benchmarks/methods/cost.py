"""What a visit costs with a method in time, bytes and memory, beside plain cross-entropy, however busy the machine is.

    python -m benchmarks.methods.cost [--grid benchmarks/methods/iid.toml] [--method gce] [--stage first] [--no-memory]

The real ServerApp and ClientApp run in this process, one client a round unless a method chooses more, and all if it
shares models. Each train message is answered twice, in alternating order: as it is, and with the method `ce` on the
same client's images. Processor time on one thread is compared, so that other work on the machine changes little. Round
1 is left out, since it also decodes images and allocates memory. Passes outside of training, such as the one that looks
for noisy clients once in a run, do not count. Bytes are those of arrays, to the client and back, on average over the
same visits.

Methods in stages are measured in their later ones, from round 2 on: every length in rounds of a row's arguments
(`warm-up-rounds=4`) becomes 1. With ``--stage first`` lengths stay, so that most of the rounds are in the first stage.

Memory is the peak of one client's process as `python -m probe` measures it: in the last round of the row's run, on one
thread, with as many images as a client of the grid holds. It includes Python and PyTorch; the last column has what the
method takes more than `ce`. `python -m benchmarks.methods.data` comes first.
"""

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from benchmarks.tools.command import run_command
from benchmarks.tools.in_process import run_in_process
from benchmarks.tools.report import report
from client_app.app import app as client_app
from config.federation import CLIENTS
from config.resolve import app_defaults, resolve
from config.run_config import Value
from data.errors import DataError
from data.release import open_release
from data.user_cache import below_home
from experiments.errors import ExperimentError
from experiments.grid import combinations
from experiments.grid_file import read_grid
from experiments.plan import Row
from methods import METHODS
from probe.concurrent import gpu_total, try_clients
from probe.errors import NoRoomError
from probe.session import images_of_one_client
from server_app.traffic import bytes_of_arrays
from simulation.capacity import Share
from task import build_model

ROUNDS = 4
GRIDS = sorted(Path(__file__).parent.glob("*.toml"))
LENGTHS = re.compile(r"(?<=-rounds=)[1-9]\d*")  # of stages, in a row's arguments
STAGES = ("last", "first")
STEPS = 10  # that the probe trains
MIB = 1 << 20
COLUMNS = (
    "grid", "method", "time, x ce", "least", "most", "sent, B", "returned, B", "bytes, x ce", "memory, MiB",
    "more than ce",
)  # fmt: skip
PACKAGES = ("flwr", "torch", "numpy")


@dataclass(frozen=True)
class Pair:
    """One visit with a method, and the same with `ce`.

    Attributes:
        server_round: From 1.
        time: Processor time of the first over that of the second.
        sent: Bytes of arrays that went to the client, with the method.
        returned: Bytes of those that came back.
        plain_bytes: Both together, with `ce`.
    """

    server_round: int
    time: float
    sent: int
    returned: int
    plain_bytes: int


class Pairs:
    """A handler of messages that times train messages and repeats each with `ce`; `seen` has all."""

    def __init__(self, model: str, classes: int) -> None:
        self._arrays = ArrayRecord(build_model(model, classes, seed=1).state_dict())
        self.seen: list[Pair] = []

    def __call__(self, message: Message, context: Context) -> Message | None:
        if message.metadata.message_type != MessageType.TRAIN:
            return client_app(message, context)
        plain = self._with_ce(message)
        aside = Context(context.run_id, context.node_id, dict(context.node_config), RecordDict(), {})
        sent = bytes_of_arrays(message)
        if len(self.seen) % 2:
            base, answer = _timed(plain, aside)
            own, reply = _timed(message, context)
        else:
            own, reply = _timed(message, context)
            base, answer = _timed(plain, aside)
        server_round = int(str(message.content.config_records["config"]["server-round"]))
        both = bytes_of_arrays(plain) + bytes_of_arrays(answer)
        self.seen.append(Pair(server_round, own / base, sent, bytes_of_arrays(reply), both))
        return reply

    def _with_ce(self, message: Message) -> Message:
        config = {**message.content.config_records["config"], "method": "ce", "method-args": ""}
        content = RecordDict({"arrays": self._arrays, "config": ConfigRecord(config)})
        plain = Message(content, message.metadata.dst_node_id, MessageType.TRAIN)
        plain.metadata.__dict__["_message_id"] = "plain"
        return plain


def pairs_of(config: Mapping[str, Value], clients: int, rounds: int = ROUNDS) -> list[Pair]:
    """The visits of all rounds but the first, each beside the same with `ce`.

    Raises:
        RuntimeError: A visit with `ce` failed; those of the method itself end the run with their own sentence.
    """
    torch.set_num_threads(1)
    classes = len(open_release(below_home(str(config["data-dir"]))).class_names)
    pairs = Pairs(str(config["model"]), classes)
    # Other clients' models go to those that have trained before.
    share = 1.0 if METHODS[str(config["method"])].shares_models else 1 / clients
    overrides: dict[str, Any] = {**config, "num-server-rounds": rounds, "fraction-train": share}
    with tempfile.TemporaryDirectory() as folder:
        run_in_process(Path(folder), clients, handler=pairs, **overrides)
    return [pair for pair in pairs.seen if pair.server_round > 1]


def memory_of(config: Mapping[str, Value], clients: int) -> int:
    """The most bytes of main memory that a process holds which trains one client.

    Raises:
        DataError: There is too little memory.
    """
    run = resolve(dict(config), app_defaults())
    share = Share(1, 1 if gpu_total() else 0)
    try:
        return try_clients(run, 1, share, STEPS, images_of_one_client(run, clients)).peak
    except NoRoomError as error:
        raise DataError(f"{error}.") from None


def as_measured(config: Mapping[str, Value], stage: str) -> dict[str, Value]:
    """A row's config with stages as long as that one of `STAGES` needs."""
    args = str(config.get("method-args", ""))
    return {**config, "method-args": LENGTHS.sub("1", args) if stage == "last" else args}


def costs(pairs: Sequence[Pair]) -> tuple[float, float, float, int, int, float]:
    """Of visits: median, least and largest quotient of times; mean bytes sent and returned; quotient of bytes."""
    times = [pair.time for pair in pairs]
    sent, returned = statistics.fmean(pair.sent for pair in pairs), statistics.fmean(pair.returned for pair in pairs)
    quotient = (sent + returned) / statistics.fmean(pair.plain_bytes for pair in pairs)
    return statistics.median(times), min(times), max(times), round(sent), round(returned), quotient


def rows_of(grids: Sequence[Path], methods: Sequence[str]) -> dict[Path, list[Row]]:
    """The rows of each grid with its first seed, in its order.

    Args:
        grids: Their files.
        methods: Labels of rows, each in one grid at least; a grid that has none of them is left out. Empty: all.

    Raises:
        DataError: A grid cannot be read, none has one of these labels, or a row names data that are not there.
    """
    firsts = {grid: _first_rows(grid) for grid in grids}
    known = list(dict.fromkeys(row.label for rows in firsts.values() for row in rows))
    if missing := [label for label in methods if label not in known]:
        where = " and ".join(map(str, grids)) if len(grids) < 3 else f"the {len(grids)} grids"
        verb = "has" if len(grids) == 1 else "have"
        raise DataError(f"--method is {missing[0]}; {where} {verb} {', '.join(known)}.")
    chosen = {grid: [row for row in rows if not methods or row.label in methods] for grid, rows in firsts.items()}
    for row in [row for rows in chosen.values() for row in rows]:
        if not (data := below_home(str(row.config.get("data-dir", "~")))).exists():
            raise DataError(f"{data} is missing; run `python -m benchmarks.methods.data` first.")
    return {grid: rows for grid, rows in chosen.items() if rows}


def _first_rows(grid: Path) -> list[Row]:
    try:
        read, problems = read_grid(grid)
    except ExperimentError as error:
        raise DataError(str(error)) from None
    if problems:
        raise DataError(" ".join(problems))
    return [one.row for one in combinations(read) if one.row.seed == read.seeds[0]]


def _one_stage(stage: str) -> str:
    if stage not in STAGES:
        raise typer.BadParameter(f"it is {stage!r}, and must be {' or '.join(STAGES)}.")
    return stage


def main(
    grid: Annotated[list[Path] | None, typer.Option(help="May be repeated; all beside this file by default.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Label of a row; may be repeated. All by default.")] = None,
    stage: Annotated[str, typer.Option(help="Of methods in stages: last or first.", callback=_one_stage)] = "last",
    memory: Annotated[bool, typer.Option(help="Whether to measure memory, in processes of their own.")] = True,
) -> None:
    rows = rows_of(grid or GRIDS, method or ())
    plain: dict[Path, int] = {}  # memory with ce
    measured: list[list[Any]] = []
    for path, row in [(path, row) for path, those in rows.items() for row in those]:
        clients = int(row.federation[CLIENTS])
        found = costs(pairs_of(as_measured(row.config, stage), clients))
        held: list[float] = []
        if memory:
            if path not in plain:
                plain[path] = memory_of({**row.config, "method": "ce", "method-args": ""}, clients)
            peak = memory_of(row.config, clients)
            held = [peak / MIB, (peak - plain[path]) / MIB]
        measured.append([path.stem, row.label, *found, *held])
        print(f"{path.stem}, {row.label}: {found[0]:.2f}", file=sys.stderr, flush=True)
    columns = COLUMNS if memory else COLUMNS[:-2]
    report(f"Cost of a visit, in the {stage} stage", columns, measured, PACKAGES)


def _timed(message: Message, context: Context) -> tuple[float, Message]:
    start = time.process_time()
    reply = client_app(message, context)
    seconds = time.process_time() - start
    if reply.has_error() and message.metadata.message_id == "plain":
        raise RuntimeError(reply.error.reason)
    return seconds, reply


if __name__ == "__main__":
    run_command(main, __doc__)
