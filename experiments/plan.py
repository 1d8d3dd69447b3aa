"""What an experiment consists of: its rows, and the file in which they are written down."""

from dataclasses import dataclass, field
from pathlib import Path

from config.run_config import Value

FILE = "experiment.json"
RUNS = "runs"  # the folder of run folders in an experiment's
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
        mark: 8 hex digits over all that decides its result: the resolved config, the number of clients, the content of
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
    """

    folder: Path
    plan: Plan
    failures: dict[str, str] = field(default_factory=dict)

    def run_dir(self, row: Row) -> Path:
        return self.folder / RUNS / row.name

    def log(self, row: Row) -> Path:
        return self.folder / LOGS / f"{row.name}.log"


def save(experiment: Experiment) -> None:
    """Write `FILE`; a crash leaves the old one or the new one."""
    raise NotImplementedError


def load(folder: Path) -> Experiment:
    """Read an experiment's folder.

    Raises:
        ExperimentError: It is none, or its `FILE` is damaged.
    """
    raise NotImplementedError
