"""Methods in two stages on the server: train everybody alike, tell noisy clients from clean ones, aggregate with DaAgg.

FedNoRo (Wu et al., IJCAI 2023, arXiv 2305.05230) and FedELC (Jiang et al., CIKM 2024, arXiv 2408.04301) share this half
and differ in what noisy clients do (`methods`). Before the first round of stage 2 every client says how well
the global model fits its labels, class by class; the tags that `noisy_clients.detect` makes of that stay for the rest
of the run. The authors' code does this on the server, which holds all images there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord
from flwr.common import log

from config.run_config import RunConfig
from data.release import Release
from methods.noisy_clients import client_scores, detect
from methods.server_half import Ask, ServerHalf, Value
from methods.two_stages import BEGAN, NOISY, STAGE, TwoStages

SHOWN = 12  # clients named in the log


@dataclass
class Found:
    """What is known once stage 2 has begun.

    Attributes:
        began: Its first round; 0 in stage 1.
        noisy: Partitions of the noisy clients.
        scores: How right that is, where it is known; for the metrics of each round.
    """

    began: int = 0
    noisy: set[int] = field(default_factory=set)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TwoStagesOnServer(TwoStages, ServerHalf):
    """The server's half; its parameters are those of `TwoStages`."""

    strategy: ClassVar[str] = "daagg"

    _found: Found = field(default_factory=Found, init=False, repr=False)
    _length: list[int] = field(default_factory=list, init=False, repr=False)

    def prepare(self, config: RunConfig, release: Release) -> None:
        self._length[:] = [self.first_stage(config.num_server_rounds)]

    def before_round(self, server_round: int, arrays: ArrayRecord, ask: Ask) -> None:
        """Tag the clients before the first round of stage 2."""
        found = self._found
        if found.began or server_round <= self._length[0]:
            return
        found.began = server_round
        if self.clients != "detect":
            said = "noisy" if self.clients == "all-noisy" else "clean"
            log(INFO, "Stage 2 begins in round %d; 'clients' says that all are %s.", server_round, said)
            return
        answers = ask("class_losses", arrays)
        if not answers:
            log(WARNING, "Stage 2 begins in round %d. No client answered, and all are taken as clean.", server_round)
            return
        partitions = sorted(answers)
        counts, sums, squares = (
            np.array([answers[partition][name] for partition in partitions], dtype=np.float64)
            for name in ("class-counts", "class-losses", "class-squares")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
            variances = np.maximum(squares / counts - means**2, 0.0)
        detection = detect(means, variances, counts.astype(np.int64), least_gap=self.least_gap)
        found.noisy = {partition for partition, noisy in zip(partitions, detection.noisy, strict=True) if noisy}
        log(INFO if detection.stands_out else WARNING, "Stage 2 begins in round %d. %s", server_round, detection.reason)
        if found.noisy:
            named = ", ".join(map(str, sorted(found.noisy)[:SHOWN])) + (", ..." if len(found.noisy) > SHOWN else "")
            log(INFO, "Noisy clients: %s.", named)
        known = np.array([_wrong_share(answers[partition]) for partition in partitions])
        found.scores = client_scores(detection.noisy, known)

    def tell(self, partition: int) -> dict[str, Value]:
        if not self._found.began:
            return {STAGE: 1, NOISY: False}
        noisy = self.clients == "all-noisy" or partition in self._found.noisy
        return {STAGE: 2, NOISY: noisy, BEGAN: self._found.began}

    def metrics(self, server_round: int) -> dict[str, float]:
        """The tags' scores, from the first round of stage 2."""
        return dict(self._found.scores) if 0 < self._found.began <= server_round else {}

    def state(self) -> dict[str, np.ndarray]:
        if not self._found.began:
            return {}
        return {
            "began": np.array([self._found.began]),
            "noisy": np.array(sorted(self._found.noisy), dtype=np.int64),
            **{f"score/{name}": np.array([value]) for name, value in self._found.scores.items()},
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        if not state:
            return
        self._found.began = int(state["began"][0])
        self._found.noisy = set(state["noisy"].tolist())
        scores = {name: float(value[0]) for name, value in state.items() if name.startswith("score/")}
        self._found.scores = {name.removeprefix("score/"): value for name, value in scores.items()}


def _wrong_share(answer: Mapping[str, Any]) -> float:
    """The share of a client's labels that are wrong; NaN unless all true labels are known."""
    known, held = answer["images-known"], answer["num-examples"]
    return float(answer["labels-wrong"]) / known if known == held else np.nan
