"""What an experiment consists of: its rows, and the file in which they are written down."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from config.rules import NAME
from config.run_config import Value
from data.whole_files import replace_file
from experiments.errors import ExperimentError
from runs.run import EXPERIMENT, ROWS

FILE, RUNS = EXPERIMENT, ROWS
LOGS = "logs"  # what `flwr run` printed for each row


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        name: Of its folder: label, seed and mark, as a plain folder name.
        label: Of its line in the table: the values of the axes that are no setting, joined by ``, ``.
        setting: The values of the axes that change nothing but data or partition, joined by ``, ``; empty without any.
        seed: Of the run.
        config: Run-config keys as the grid gives them, with the seed; without name, place and `resume`.
        federation: Flower's keys of a simulation, see `config.federation`.
        mark: 12 hex digits over all that decides its result: the resolved config, the number of clients, the content of
            its lists, the code.
        reference: See `runs.entries.Entry`.
        trials: See `runs.entries.Entry`.
    """

    name: str
    label: str
    setting: str
    seed: int
    config: dict[str, Value]
    federation: dict[str, Value]
    mark: str
    reference: bool = False
    trials: int | None = None


@dataclass(frozen=True)
class Plan:
    """A grid, resolved.

    Attributes:
        title: For people; the grid file's name without one.
        rows: Seed by seed, so that even an incomplete table compares like with like.
        baseline: A label; empty for none.
        code: Fingerprint of the code that runs.
        keep: ``all``, or ``results``: without checkpoints, clients' state and weights of rows that are done.
    """

    title: str
    rows: tuple[Row, ...]
    baseline: str = ""
    code: str = ""
    keep: str = "all"


@dataclass
class Experiment:
    """An experiment's folder.

    Attributes:
        folder: Absolute.
        plan: What is in `FILE`.
        failures: Reason by row name, of rows that failed last time.
        lock: Descriptor of the folder's lock, see `experiments.lock`; None where nothing is started. Processes that
            must be gone before the next start inherit it.
    """

    folder: Path
    plan: Plan
    failures: dict[str, str] = field(default_factory=dict)
    lock: int | None = field(default=None, compare=False)

    def run_dir(self, row: Row) -> Path:
        return self.folder / RUNS / row.name

    def log(self, row: Row) -> Path:
        return self.folder / LOGS / f"{row.name}.log"


def save(experiment: Experiment) -> None:
    """Write `FILE`; a crash leaves the old one or the new one."""
    values = {**asdict(experiment.plan), "failures": experiment.failures}
    replace_file(experiment.folder / FILE, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def load(folder: Path) -> Experiment:
    """Read an experiment's folder.

    Raises:
        ExperimentError: It is none, or its `FILE` is damaged.
    """
    path = folder / FILE
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        failures, rows = values.pop("failures"), values.pop("rows")
        plan = Plan(rows=tuple(Row(**row) for row in rows), **values)
        if not _is_sound(plan, failures):
            raise ValueError("values of other types")
    except (FileNotFoundError, NotADirectoryError):
        raise ExperimentError(
            f"{folder} is no experiment's folder: it has no {FILE}, which `python -m experiments run` writes."
        ) from None
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise ExperimentError(
            f"{path} is damaged; move it away and start the grid again in that folder: runs that are there are kept."
        ) from None
    return Experiment(folder.absolute(), plan, failures)


def _is_sound(plan: Plan, failures: Any) -> bool:
    names = [row.name for row in plan.rows]
    texts = (plan.title, plan.baseline, plan.code)
    return (
        all(isinstance(text, str) for text in texts)
        and plan.keep in ("all", "results")
        and all(map(_is_sound_row, plan.rows))
        and len(set(names)) == len(names)
        and isinstance(failures, dict)
        and all(isinstance(reason, str) for reason in failures.values())
    )


def _is_sound_row(row: Row) -> bool:
    texts = (row.name, row.label, row.setting, row.mark)
    return (
        all(isinstance(text, str) for text in texts)
        and row.name != ""
        and NAME.holds(row.name)
        and type(row.seed) is int
        and type(row.reference) is bool
        and (row.trials is None or type(row.trials) is int)
        and all(isinstance(one, dict) for one in (row.config, row.federation))
        and all(type(value) in (bool, int, float, str) for value in (*row.config.values(), *row.federation.values()))
    )
