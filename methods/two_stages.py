"""Methods in two stages: train everybody alike, then tell noisy clients from clean ones and train them differently.

These are FedNoRo (Wu et al., IJCAI 2023, arXiv 2305.05230) and FedELC (Jiang et al., CIKM 2024, arXiv 2408.04301).

The papers give stage 1 as rounds of their protocols (10 of 100, 20 of 120); here it is a share of the run's rounds,
unless it is given in rounds. Before the first round of stage 2 every client reports how well the global model fits its
labels, class by class. The tags that `noisy_clients.detect` derives from that hold for the rest of the run. The
authors' code does this on the server, which holds all images there. Stage 2 is aggregated by distance (`daagg`).

Who is sampled can depend on the stage, as in FedCorr (Xu et al., CVPR 2022, arXiv 2204.04677). ``in-turns`` lets
everybody train before anybody trains again, so that detection judges a model that has seen all clients. ``clean``
leaves noisy clients out of stage 2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.common import log

from config.named import rounds_of
from config.parameters import parameter
from config.rules import interval, one_of, rounds_or_share
from config.run_config import ConfigError, RunConfig
from data.release import Release
from learning.method import Method, ServerHalf, Told
from learning.schema import Number, Numbers, Schema
from learning.server_half import Ask, Choice
from methods.noisy_clients import detect
from methods.turns import Turns

# What the server tells each client each round, by name.
STAGE = "stage"  # 1 or 2
NOISY = "noisy"  # bool: the client's tag, False in stage 1; in a reply's metrics 0 or 1, which aggregation reads
BEGAN = "stage-2-began"  # the first round of stage 2, from 1; absent in stage 1

CLASS_LOSSES = "class_losses"  # the action of the ClientApp that `before_round` asks for
CLIENTS = ("detect", "all-noisy", "all-clean")
IN_TURNS, CLEAN = "in-turns", "clean"
SHOWN = 12  # clients named in the log


@dataclass(frozen=True)
class TwoStages(Method):
    """A method in two stages; subclasses add the loss.

    Attributes:
        warm_up: Length of stage 1 as a share of the run's rounds, above 0 and below 1; a sixth is 20 rounds of 120.
        warm_up_rounds: The same in rounds, at least 1; -1 leaves it to `warm_up`.
        clients: Who is noisy in stage 2: ``detect`` judges by the global model's losses on each client's labels;
            ``all-noisy`` and ``all-clean`` ask nobody, for data where all clients are alike.
        least_gap: Detection calls nobody noisy unless the two groups' losses differ by this share of the mean loss.
        first_stage_clients: Who is sampled in stage 1: any client (``sampled``), or ``in-turns`` nobody again before
            everybody else has trained. A client whose reply did not count has not trained.
        second_stage_clients: Who is sampled in stage 2: ``all``, or ``clean`` ones alone; all if nobody is clean.
    """

    warm_up: float = parameter(1 / 6, interval(0, 1, open_low=True, open_high=True))
    warm_up_rounds: int = parameter(-1, rounds_or_share(1, "warm-up"))
    clients: str = parameter("detect", one_of(*CLIENTS))
    least_gap: float = parameter(0.1, interval(0))
    first_stage_clients: str = parameter("sampled", one_of("sampled", IN_TURNS))
    second_stage_clients: str = parameter("all", one_of("all", CLEAN))

    strategy = "daagg"
    finds_noisy_clients = True

    def first_stage(self, num_rounds: int) -> int:
        """How many rounds stage 1 takes: at least 1, and fewer than the run's, so that stage 2 exists.

        A run of one round is all stage 1.

        Raises:
            ConfigError: `warm_up_rounds` is not below the run's rounds.
        """
        return first_stage_of(self.warm_up, self.warm_up_rounds, num_rounds)

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        """The client's tag as the server told it: one that claims another would choose its own weight in the mean."""
        tag = float(learns_as_noisy(told))
        return {NOISY: Number(tag, tag)}

    def on_server(self) -> "TwoStagesOnServer":
        return TwoStagesOnServer(self)


def learns_as_noisy(told: Mapping[str, object]) -> bool:
    """Whether stage 2 has begun and the server calls this client noisy; one that is told nothing is in stage 1."""
    return told.get(STAGE, 1) == 2 and bool(told.get(NOISY, False))


def first_stage_of(warm_up: float, warm_up_rounds: int, num_rounds: int) -> int:
    """How many rounds a warm-up takes: at least 1, and fewer than the run's if that has several.

    Args:
        warm_up: Its share of the run.
        warm_up_rounds: Its rounds; -1 leaves it to the share.
        num_rounds: Of the run.

    Raises:
        ConfigError: `warm_up_rounds` is not below the run's rounds.
    """
    if warm_up_rounds >= max(2, num_rounds):
        raise ConfigError(
            f"run config: 'method-args' sets warm-up-rounds to {warm_up_rounds}, but 'num-server-rounds' is"
            f" {num_rounds}; it must be below that."
        )
    return max(1, min(rounds_of(warm_up, warm_up_rounds, num_rounds), num_rounds - 1))


class TwoStagesOnServer(ServerHalf):
    """Tags the clients once, when stage 2 begins, and tells each client its tag."""

    reads_data: ClassVar[bool] = False

    def __init__(self, method: TwoStages) -> None:
        self._method = method
        self._length = 0  # of stage 1, in rounds
        self._began = 0  # first round of stage 2; 0 in stage 1
        self._noisy: set[int] = set()  # partitions of the noisy clients
        self._trained: set[int] = set()  # partitions of those that trained in the last round of stage 1 so far
        self._judged: dict[int, float] = {}  # by partition of those that answered, the share of wrong labels, or NaN
        self._turns = Turns()  # in stage 1, if clients are sampled in turns
        self._seed = 0

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        self._length = self._method.first_stage(config.num_server_rounds)
        self._seed = config.seed

    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        """Tag the clients before the first round of stage 2."""
        if self._began or server_round <= self._length:
            return
        self._began = server_round
        if self._method.clients != "detect":
            tag = "noisy" if self._method.clients == "all-noisy" else "clean"
            log(INFO, "Stage 2 begins in round %d. All clients count as %s, by 'method-args'.", server_round, tag)
            if tag == "noisy" and self._method.second_stage_clients == CLEAN:
                log(WARNING, "Nobody is clean: all clients are sampled in stage 2.")
            return
        answers = ask(CLASS_LOSSES, arrays)
        if not answers:
            log(WARNING, "Stage 2 begins in round %d. No client answered, and all count as clean.", server_round)
            return
        partitions = sorted(answers)
        counts, sums, squares = (
            np.array([answers[partition][name] for partition in partitions], dtype=np.float64)
            for name in ("class-counts", "class-losses", "class-squares")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
            variances = np.maximum(squares / counts - means**2, 0.0)
        trained = np.isin(partitions, list(self._trained))
        least_gap = self._method.least_gap
        detection = detect(means, variances, counts.astype(np.int64), least_gap=least_gap, trained=trained)
        self._noisy = {partition for partition, noisy in zip(partitions, detection.noisy, strict=True) if noisy}
        log(INFO if detection.stands_out else WARNING, "Stage 2 begins in round %d. %s", server_round, detection.reason)
        if self._noisy:
            named = ", ".join(map(str, sorted(self._noisy)[:SHOWN])) + (", ..." if len(self._noisy) > SHOWN else "")
            log(INFO, "Noisy clients: %s; noisy-clients.json lists all clients.", named)
        self._judged = {partition: _wrong_share(answers[partition]) for partition in partitions}

    def answers(self, classes: int, images: int) -> Mapping[str, Schema]:
        count, positive = Number(0, images, whole=True), Number(low=0)
        of_classes: Schema = {"class-losses": Numbers(positive, classes), "class-squares": Numbers(positive, classes)}
        exact: Schema = {"num-examples": Number(images, images, whole=True), "class-counts": Numbers(count, classes)}
        return {CLASS_LOSSES: {**exact, **of_classes, "images-known": count, "labels-wrong": count}}

    def tell(self, partition: int) -> dict[str, Told]:
        if not self._began:
            return {STAGE: 1, NOISY: False}
        noisy = self._method.clients == "all-noisy" or partition in self._noisy
        return {STAGE: 2, NOISY: noisy, BEGAN: self._began}

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        """Those whose turn it is in stage 1, and the clean ones in stage 2, if the method's parameters say so."""
        if not self._began and self._method.first_stage_clients == IN_TURNS:
            return self._turns.choose(clients, usual, np.random.default_rng([self._seed, server_round]))
        if self._began and self._method.second_stage_clients == CLEAN and self._method.clients != "all-noisy":
            return Choice([partition for partition in clients if partition not in self._noisy], usual)
        return None

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        if self._began:
            return
        self._trained = set(replies)
        if self._method.first_stage_clients == IN_TURNS:
            self._turns.trained(replies)

    def noisy_clients(self) -> dict[int, bool] | None:
        """The tags; nobody is judged by `clients` all-noisy and all-clean."""
        return {partition: partition in self._noisy for partition in self._judged} or None

    def wrong_labels(self) -> dict[int, float]:
        return {partition: share for partition, share in self._judged.items() if not math.isnan(share)}

    def state(self) -> dict[str, np.ndarray]:
        if not self._began:
            trained = {"trained": np.array(sorted(self._trained), dtype=np.int64)} if self._trained else {}
            return {**self._turns.state(), **trained}
        return {
            "began": np.array([self._began]),
            "noisy": np.array(sorted(self._noisy), dtype=np.int64),
            "judged": np.array(list(self._judged), dtype=np.int64),
            "wrong": np.array(list(self._judged.values()), dtype=np.float64),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._turns.load_state(state)
        self._trained = set(state["trained"].tolist()) if "trained" in state else set()
        if "began" not in state:
            return
        self._began = int(state["began"][0])
        self._noisy = set(state["noisy"].tolist())
        self._judged = dict(zip(state["judged"].tolist(), state["wrong"].tolist(), strict=True))


def _wrong_share(answer: Mapping[str, Any]) -> float:
    """The share of a client's labels that are wrong; NaN unless all true labels are known."""
    known, held = answer["images-known"], answer["num-examples"]
    return float(answer["labels-wrong"]) / known if known == held else np.nan
