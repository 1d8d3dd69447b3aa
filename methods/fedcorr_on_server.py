"""The server half of FedCorr (`fedcorr`): whose turn it is, who is noisy, and in which stage the run is.

The paper's server adds up each client's mean LID over iterations, fits a mixture of two Gaussians over the clients
after each of them, and calls the higher component noisy. Here, too, an iteration ends when all connected clients have
been visited once more (`turns.Turns`), and stage 1 ends with a judgement in any case. A client's number is the mean
over its visits, so that those that were visited twice can be compared with those that were visited once. The two
groups must stand out (`two_groups`), since there always are two, unless ``groups`` is ``always``.

A client that never answered in stage 1, or that holds too few images to tell, is not judged and counts as clean. A
connected client whose replies never count keeps an iteration from ending; stage 1 then has but the judgement at its
end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.common import log

from config.run_config import RunConfig
from data.release import Release
from learning.server_half import Ask, Choice, ServerHalf, Told
from methods.turns import Turns
from methods.two_groups import always_two, two_groups
from methods.two_stages import NOISY, SHOWN, STAGE

if TYPE_CHECKING:
    from methods.fedcorr import FedCorr

# What the server tells each client each round besides its stage and tag, by name.
DELTA = "delta"  # delta_k of the proximal term; 0 in later stages, and at a client that is not noisy
JUDGEMENTS = "judgements"  # how often the server has judged so far

# What a client reports in stage 1 besides its tag.
LID = "lid"  # the mean over its images; absent if it holds too few
LID_ERROR = "lid-error"  # the standard error of that mean, by the sampling of images; likewise
NOISY_SHARE = "noisy-share"  # of its images, those in the higher part of the losses


@dataclass
class Record:
    """What the server knows of a client that has answered in stage 1.

    Attributes:
        lids: Sum of the reported dimensions.
        errors: Sum of their standard errors. That of a mean over visits is taken as the mean error, as the images of
            all visits are the same.
        visits: How many these are.
        share: delta_k, as last reported.
        wrong: The share of its labels that are wrong; NaN if that is not known.
        last: The round of its last answer.
    """

    lids: float = 0.0
    errors: float = 0.0
    visits: float = 0.0
    share: float = 0.0
    wrong: float = math.nan
    last: float = 0.0


class FedCorrOnServer(ServerHalf):
    """Judges clients in stage 1 after each iteration, and leaves noisy ones out of stage 2."""

    reads_data: ClassVar[bool] = False

    def __init__(self, method: "FedCorr") -> None:
        self._method = method
        self._lengths = (0, 0)  # of stages 1 and 2, in rounds
        self._stage = 1
        self._turns = Turns()  # in stage 1
        self._completed = 0  # turns that were judged
        self._judgements = 0
        self._records: dict[int, Record] = {}  # by partition
        self._judged: dict[int, bool] = {}  # by partition: noisy, as last judged
        self._clients: tuple[int, ...] = ()  # those that were connected when this round's were chosen
        self._seed = 0

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        self._lengths = self._method.stages(config.num_server_rounds)
        self._seed = config.seed

    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        """Move on to the stage of this round; a run that is made longer does not go back."""
        first, second = self._lengths
        stage = 1 if server_round <= first else 2 if server_round <= first + second else 3
        if stage <= self._stage:
            return
        self._stage = stage
        log(INFO, "Stage %d begins in round %d.", stage, server_round)
        if stage == 2 and self._judged and not any(map(self._is_clean_enough, self._judged)):
            log(WARNING, "Nobody is clean: all clients are sampled in stage 2.")

    def tell(self, partition: int) -> dict[str, Told]:
        delta = self._delta(partition) if self._stage == 1 else 0.0
        noisy = self._judged.get(partition, False)
        return {STAGE: self._stage, NOISY: noisy, DELTA: delta, JUDGEMENTS: self._judgements}

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        """Those whose turn it is in stage 1, so that everybody has had one when it ends; clean ones in stage 2."""
        self._clients = tuple(clients)
        if self._stage == 1:
            generator = np.random.default_rng([self._seed, server_round])
            return self._turns.choose_within(self._lengths[0], self._method.iterations, clients, usual, generator)
        if self._stage == 2 and (clean := [partition for partition in clients if self._is_clean_enough(partition)]):
            return Choice(clean, usual)
        return None

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        if self._stage != 1:
            return
        for partition in sorted(replies):
            reply, record = replies[partition], self._records.setdefault(partition, Record())
            if LID in reply and LID_ERROR in reply:
                record.lids += float(reply[LID])
                record.errors += float(reply[LID_ERROR])
                record.visits += 1
            record.share, record.last = float(reply[NOISY_SHARE]), float(server_round)
            record.wrong = _wrong_share(reply)
        self._turns.trained(replies)
        completed = self._turns.completed(self._clients)
        if completed > self._completed or server_round >= self._lengths[0]:
            self._completed = completed
            self._judge(server_round)

    def _judge(self, server_round: int) -> None:
        self._judgements += 1
        known = [partition for partition in sorted(self._records) if self._records[partition].visits]
        records = [self._records[partition] for partition in known]
        lids = np.array([record.lids / record.visits for record in records])
        before = self._noisy()
        if self._method.groups == "always":
            found = always_two(lids)
        else:
            errors = np.array([record.errors / record.visits for record in records])
            rounds = np.array([record.last for record in records], dtype=np.int64)
            found = two_groups(lids, errors, rounds, self._method.least_gap)
        self._judged = dict(zip(known, found.higher.tolist(), strict=True))
        if self._judgements == 1 or self._noisy() != before or server_round >= self._lengths[0]:
            self._log(server_round, found.reason)

    def _noisy(self) -> list[int]:
        return [partition for partition in sorted(self._judged) if self._judged[partition]]

    def _log(self, server_round: int, reason: str) -> None:
        """Say what was found; of equal judgements, the first and the last of stage 1 alone."""
        noisy, left = self._noisy(), set(self._clients) - self._judged.keys()
        if not noisy:
            text = "Round %d: no client stands out by the dimension of its predictions, and all count as clean: %s."
            log(WARNING, text, server_round, reason)
        else:
            text = "Round %d: noisy clients found by the dimension of their predictions: %s."
            log(INFO, text, server_round, reason)
            named = ", ".join(map(str, noisy[:SHOWN])) + (", ..." if len(noisy) > SHOWN else "")
            log(INFO, "Noisy clients: %s; noisy-clients.json lists all clients.", named)
        if left:
            text = "%d of %d clients could not be judged: they have not answered, or hold too few images."
            log(INFO, text, len(left), len(self._clients))

    def _delta(self, partition: int) -> float:
        return self._records[partition].share if self._judged.get(partition) else 0.0

    def _is_clean_enough(self, partition: int) -> bool:
        return self._delta(partition) <= self._method.clean_share

    def noisy_clients(self) -> dict[int, bool] | None:
        return dict(self._judged) or None

    def wrong_labels(self) -> dict[int, float]:
        of_judged = {partition: self._records[partition].wrong for partition in self._judged}
        return {partition: share for partition, share in of_judged.items() if not math.isnan(share)}

    def state(self) -> dict[str, np.ndarray]:
        progress = [self._stage, self._completed, self._judgements]
        known = [[partition, *vars(record).values()] for partition, record in sorted(self._records.items())]
        return {
            "progress": np.array(progress, dtype=np.int64),
            "records": np.array(known, dtype=np.float64).reshape(len(known), 7),
            "judged": np.array(sorted(self._judged.items()), dtype=np.int64).reshape(-1, 2),
            **self._turns.state(),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._turns.load_state(state)
        if "progress" in state:
            self._stage, self._completed, self._judgements = state["progress"].tolist()
            self._records = {int(partition): Record(*rest) for partition, *rest in state["records"].tolist()}
            self._judged = {partition: bool(noisy) for partition, noisy in state["judged"].tolist()}


def _wrong_share(reply: Mapping[str, Any]) -> float:
    """The share of a client's labels that are wrong, from 0 to 1; NaN unless all true labels are known."""
    known, held = reply.get("images-known", 0), reply.get("num-examples", 0)
    return min(max(1 - float(reply["labels-right"]) / known, 0.0), 1.0) if 0 < known == held else math.nan
