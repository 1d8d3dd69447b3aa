"""What a visit costs with a method, relative to plain cross-entropy, however busy the machine is.

    python -m benchmarks.methods.cost [--grid benchmarks/methods/iid.toml] [--method gce]

The real ServerApp and ClientApp run in this process, one client a round. Each train message is answered twice, in
alternating order: as it is, and with the method `ce` on the same client's images. Processor time on one thread is
compared, so that other work on the machine changes little. The first pair is left out, since it also decodes images and
allocates memory. Passes outside of training, such as the one that looks for noisy clients once in a run, do not count.
Methods in two stages are timed in the second one, from round 2 on. `python -m benchmarks.methods.data` comes first.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
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
from config.run_config import Value
from data.errors import DataError
from data.release import open_release
from data.user_cache import below_home
from experiments.errors import ExperimentError
from experiments.grid import combinations
from experiments.grid_file import read_grid
from experiments.plan import Row
from task import build_model

ROUNDS = 4
GRIDS = sorted(Path(__file__).parent.glob("*.toml"))
WARM = "warm-up-rounds=4"  # in the grids
PACKAGES = ("flwr", "torch", "numpy")


class Pairs:
    """A handler of messages that times train messages and repeats each with `ce`; `ratios` has the quotients."""

    def __init__(self, model: str, classes: int) -> None:
        self._arrays = ArrayRecord(build_model(model, classes, seed=1).state_dict())
        self.ratios: list[float] = []

    def __call__(self, message: Message, context: Context) -> Message | None:
        if message.metadata.message_type != MessageType.TRAIN:
            return client_app(message, context)
        plain = self._with_ce(message)
        aside = Context(context.run_id, context.node_id, dict(context.node_config), RecordDict(), {})
        if len(self.ratios) % 2:
            base, _ = _timed(plain, aside)
            own, reply = _timed(message, context)
        else:
            own, reply = _timed(message, context)
            base, _ = _timed(plain, aside)
        self.ratios.append(own / base)
        return reply

    def _with_ce(self, message: Message) -> Message:
        config = {**message.content.config_records["config"], "method": "ce", "method-args": ""}
        content = RecordDict({"arrays": self._arrays, "config": ConfigRecord(config)})
        plain = Message(content, message.metadata.dst_node_id, MessageType.TRAIN)
        plain.metadata.__dict__["_message_id"] = "plain"
        return plain


def ratios(config: Mapping[str, Value], clients: int, rounds: int = ROUNDS) -> list[float]:
    """Processor time of visits over that of the same visits with `ce`, one number a round but the first.

    Raises:
        RuntimeError: A visit with `ce` failed; those of the method itself end the run with their own sentence.
    """
    torch.set_num_threads(1)
    classes = len(open_release(below_home(str(config["data-dir"]))).class_names)
    pairs = Pairs(str(config["model"]), classes)
    overrides: dict[str, Any] = {**config, "num-server-rounds": rounds, "fraction-train": 1 / clients}
    with tempfile.TemporaryDirectory() as folder:
        run_in_process(Path(folder), clients, handler=pairs, **overrides)
    return pairs.ratios[1:]


def rows_of(grid: Path, methods: Collection[str]) -> list[Row]:
    """A grid's rows with its first seed, in its order.

    Args:
        grid: Its file.
        methods: Labels of rows; empty: all.

    Raises:
        DataError: The grid cannot be read, has none of these rows, or names data that are not there.
    """
    try:
        read, problems = read_grid(grid)
    except ExperimentError as error:
        raise DataError(str(error)) from None
    if problems:
        raise DataError(" ".join(problems))
    first = [one.row for one in combinations(read) if one.row.seed == read.seeds[0]]
    rows = [row for row in first if not methods or row.label in methods]
    if not rows:
        known = ", ".join(row.label for row in first)
        raise DataError(f"--method is {', '.join(methods)}; {grid} has {known}.")
    for row in rows:
        if not (data := below_home(str(row.config.get("data-dir", "~")))).exists():
            raise DataError(f"{data} is missing; run `python -m benchmarks.methods.data` first.")
    return rows


def main(
    grid: Annotated[list[Path] | None, typer.Option(help="May be repeated; all beside this file by default.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Label of a row; may be repeated. All by default.")] = None,
) -> None:
    rows = {path: rows_of(path, method or ()) for path in grid or GRIDS}
    measured = []
    for path, row in [(path, row) for path, those in rows.items() for row in those]:
        # From the second round on in stage 2, where these methods differ.
        config = {**row.config, "method-args": str(row.config.get("method-args", "")).replace(WARM, "warm-up-rounds=1")}
        found = ratios(config, int(row.federation[CLIENTS]))
        measured.append((path.stem, row.label, statistics.median(found), min(found), max(found)))
        print(f"{path.stem}, {row.label}: {statistics.median(found):.2f}", file=sys.stderr, flush=True)
    report("Processor time of a visit, x ce", ("grid", "method", "median", "least", "most"), measured, PACKAGES)


def _timed(message: Message, context: Context) -> tuple[float, Message]:
    start = time.process_time()
    reply = client_app(message, context)
    seconds = time.process_time() - start
    if reply.has_error() and message.metadata.message_id == "plain":
        raise RuntimeError(reply.error.reason)
    return seconds, reply


if __name__ == "__main__":
    run_command(main, __doc__)
