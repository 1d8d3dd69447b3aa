"""What every contender does, and what it reports. No PyTorch here: see `benchmarks.peers.learning`.

Each contender is a module that its own Python runs as ``python -m benchmarks.peers.<name> JOB RESULT``. Those that only
start other processes get by with this one.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """FedAvg with one local epoch a round. All clients hold as many images, so the job has one number of steps,
    whichever clients a framework samples.

    Attributes:
        folder: Absolute; holds `client-0.npz`, ..., `test.npz` (`images` uint8 (n, size, size, 3), `labels` int64), and
            `steps`, one byte for each SGD step.
        model: A torchvision ResNet.
        classes: Outputs of the model.
        weights_seed: Of the initial weights.
        clients: N.
        cohorts: The clients of each round, all the same size, for those frameworks that let one choose.
        images: Of each client.
        image_size: Side in pixels.
        batch_size: A divisor of `images`: frameworks differ in what they do with an incomplete batch.
        learning_rate: Of SGD, as the next two; momentum starts from zero at each visit.
        momentum: Above 0, which tells steps of clients from those of a server's optimiser, and below 1.
        weight_decay: At least 0.
        workers: Clients that train at a time, where the framework can; they share the cores.

    Raises:
        ValueError: A job that frameworks would not share.
    """

    folder: str
    model: str
    classes: int
    weights_seed: int
    clients: int
    cohorts: tuple[tuple[int, ...], ...]
    images: int
    image_size: int
    batch_size: int
    learning_rate: float = 0.004
    momentum: float = 0.9
    weight_decay: float = 5e-4
    workers: int = 2

    def __post_init__(self) -> None:
        if self.images % self.batch_size:
            raise ValueError(f"'images' is {self.images}; it must be a multiple of 'batch-size' ({self.batch_size}).")
        if len(self.cohorts) < 2:
            raise ValueError(
                f"'rounds' is {len(self.cohorts)}; it must be at least 2, since the first is counted apart."
            )
        if not 1 <= self.sampled <= self.clients:
            raise ValueError(f"'sampled' is {self.sampled}; it must be from 1 to 'clients' ({self.clients}).")

    @property
    def sampled(self) -> int:
        """Clients of a round."""
        return len(self.cohorts[0])

    @property
    def steps(self) -> int:
        """SGD steps of all clients in all rounds."""
        return sum(len(cohort) for cohort in self.cohorts) * (self.images // self.batch_size)

    @property
    def threads(self) -> int:
        """Of each worker: its share of the cores that may be used."""
        return max(1, len(os.sched_getaffinity(0)) // self.workers)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Job":
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "cohorts": tuple(tuple(cohort) for cohort in values["cohorts"])})


class Report:
    """What a contender measures of itself: when each round was done and how good the global model was then."""

    def __init__(self, package: str) -> None:
        """`package` is what the table names, with its version."""
        self._version = f"{package} {version(package)}"
        self._rounds: list[dict[str, float]] = []

    def round_done(self, reached: float, when: float | None = None) -> None:
        """`reached` is the accuracy; `when` is of `time.perf_counter`, one clock for all processes on Linux."""
        self._rounds.append({"accuracy": reached, "end": time.perf_counter() if when is None else when})

    def write(self, path: str | Path) -> None:
        values = {"version": self._version, "torch": version("torch"), "rounds": self._rounds}
        Path(path).write_text(json.dumps(values), encoding="utf-8")
