"""The server half of FedDiv (`feddiv`): the mean mixture, whose turn it is, and who is noisy."""

import math
from collections.abc import Callable, Mapping, Sequence
from logging import INFO
from typing import Any, ClassVar

import numpy as np
from flwr.common import log

from config.run_config import RunConfig
from data.release import Release
from learning.method import ServerHalf, Told
from learning.server_half import Choice
from methods.federated_mixture import MIXTURE, FederatedMixture
from methods.turns import Turns
from methods.two_stages import NOISY, SHOWN

LINES = 10  # of the log at most about who is noisy


class FedDivOnServer(ServerHalf):
    """Averages the mixtures, samples in turns during the warm-up, and keeps what clients say of themselves."""

    reads_data: ClassVar[bool] = False

    def __init__(self, first_stage: Callable[[int], int], iterations: int) -> None:
        """Take from the method what it needs.

        Args:
            first_stage: See `feddiv.FedDiv`.
            iterations: Likewise.
        """
        self._first_stage, self._iterations = first_stage, iterations
        self._length = 0  # of the warm-up, in rounds
        self._seed = 0
        self._turns = Turns()
        self._mixture = FederatedMixture()
        self._images: dict[int, int] = {}  # n_k by partition, see `heard`
        self._wrong: dict[int, float] = {}  # by partition, the share of wrong labels, or NaN
        self._noisy: dict[int, bool] = {}  # by partition of those that were visited after the warm-up
        self._lines = 0  # of the log so far, about who is noisy

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        self._length, self._seed = self._first_stage(config.num_server_rounds), config.seed

    def tell(self, partition: int) -> dict[str, Told]:
        mean = self._mixture.mean
        return {} if mean is None else {MIXTURE: mean.numbers}

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        """In the warm-up those whose turn it is, so many that all have trained when it ends."""
        if server_round > self._length:
            return None
        generator = np.random.default_rng([self._seed, server_round])
        return self._turns.choose_within(self._length, self._iterations, clients, usual, generator)

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        if server_round <= self._length:
            self._turns.trained(replies)
        before = self._named()
        for partition in sorted(replies):
            reply = replies[partition]
            # A weight may count only the images that were used, and then that of a warm-up visit counts all of them.
            # Unlike a number of the client's own, it is never above what the roll call heard.
            images = self._images[partition] = max(int(reply["num-examples"]), self._images.get(partition, 1))
            self._mixture.hear(partition, images, reply)
            known, right = reply["images-known"], reply["labels-right"]
            self._wrong[partition] = max(known - right, 0) / known if known >= images else math.nan
            if server_round > self._length:
                self._noisy[partition] = bool(reply[NOISY])
        self._log(server_round, before)

    def _named(self) -> list[int]:
        return sorted(partition for partition, noisy in self._noisy.items() if noisy)

    def _log(self, server_round: int, before: list[int]) -> None:
        mean, noisy = self._mixture.mean, self._named()
        if server_round == self._length and mean is not None:
            (low, high), (narrow, wide) = mean.means, np.sqrt(mean.variances)
            text = "The warm-up ends: by %d clients, right labels cost %.2f +- %.2f nats and wrong ones %.2f +- %.2f."
            log(INFO, text, len(self._mixture), low, narrow, high, wide)
        if self._lines < LINES and server_round > self._length and (noisy != before or not self._lines):
            self._lines += 1
            named = ", ".join(map(str, noisy[:SHOWN])) + (", ..." if len(noisy) > SHOWN else "")
            more = "" if self._lines < LINES else " Changes from here on are in noisy-clients.json alone."
            text = "Round %d: %d of %d clients that were judged are noisy%s.%s"
            log(INFO, text, server_round, len(noisy), len(self._noisy), f": {named}" if named else "", more)

    def noisy_clients(self) -> dict[int, bool] | None:
        return {partition: self._noisy[partition] for partition in sorted(self._noisy)} or None

    def wrong_labels(self) -> dict[int, float]:
        return {partition: share for partition, share in sorted(self._wrong.items()) if not math.isnan(share)}

    def state(self) -> dict[str, np.ndarray]:
        clients = sorted(self._images)
        judged = [int(self._noisy[client]) if client in self._noisy else -1 for client in clients]
        about = {
            "clients": np.array(clients, dtype=np.int64),
            "images": np.array([self._images[client] for client in clients], dtype=np.int64),
            "wrong": np.array([self._wrong[client] for client in clients], dtype=np.float64),
            "noisy": np.array(judged, dtype=np.int64),  # -1: not judged
            "lines": np.array([self._lines], dtype=np.int64),
        }
        return {**self._turns.state(), **self._mixture.state(), **(about if clients else {})}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._turns.load_state(state)
        self._mixture.load_state(state)
        if "clients" not in state:
            return
        clients = state["clients"].tolist()
        self._images = dict(zip(clients, state["images"].tolist(), strict=True))
        self._wrong = dict(zip(clients, state["wrong"].tolist(), strict=True))
        judged = zip(clients, state["noisy"].tolist(), strict=True)
        self._noisy = {client: bool(noisy) for client, noisy in judged if noisy >= 0}
        self._lines = int(state["lines"][0])
