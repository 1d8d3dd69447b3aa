"""The server half of `methods.fedrn`: what it knows of each client that has been heard, and whose models it sends."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from config.run_config import RunConfig
from data.release import Release
from learning.server_half import ServerHalf, Told
from methods.neighbours import best, scores_for
from task import derived_seed

# In a reply's metrics.
EXPERTISE = "expertise"  # share of the client's given labels that its trained model predicts
PROBE = "probe"  # C logits of that model for the noise
LARGEST_LOGIT = 1e6  # cosines of such vectors are exact enough
# What the server tells each client.
SEED = "probe-seed"  # of the noise
SCORES = "scores"  # its own, and those of its neighbours; absent in the warm-up, and for a client not heard before


class FedRNOnServer(ServerHalf):
    """Scores clients for each other, and sends the best ones' models."""

    reads_data: ClassVar[bool] = False
    keeps_models: ClassVar[bool] = True

    def __init__(self, warm_up_of: Callable[[int], int], alpha: float, neighbours: int) -> None:
        """For one run.

        Args:
            warm_up_of: T_w by the run's number of rounds.
            alpha: Weight of expertise.
            neighbours: k.
        """
        self._warm_up_of = warm_up_of
        self._alpha, self._count = alpha, neighbours
        self._warm_up = 0
        self._seed = 0
        self._round = 0  # whose messages are going out
        self._heard: dict[int, list[float]] = {}  # by partition: expertise, then C logits

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        self._warm_up = self._warm_up_of(config.num_server_rounds)
        self._seed = derived_seed(config.seed, "probe image")

    def before_round(self, server_round: int, arrays: Any, ask: Any) -> None:
        self._round = server_round

    def tell(self, partition: int) -> dict[str, Told]:
        told: dict[str, Told] = {SEED: self._seed}
        if scores := self._neighbourhood(partition):
            told[SCORES] = list(scores.values())
        return told

    def tell_models(self, partition: int) -> dict[str, int]:
        """The neighbours' by their ranks, from 1."""
        others = [client for client in self._neighbourhood(partition) if client != partition]
        return {str(rank): client for rank, client in enumerate(others, start=1)}

    def _neighbourhood(self, partition: int) -> dict[int, float]:
        """Scores by partition: the client's own first, then its neighbours'; empty if it is to judge nothing."""
        if self._round <= self._warm_up or partition not in self._heard:
            return {}
        clients = sorted(self._heard)
        own, known = clients.index(partition), np.array([self._heard[client] for client in clients])
        scores = scores_for(own, known[:, 0], known[:, 1:], self._alpha)
        return {clients[place]: float(scores[place]) for place in (own, *best(scores, own, self._count))}

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        for partition, metrics in replies.items():
            self._heard[partition] = [float(metrics[EXPERTISE]), *map(float, metrics[PROBE])]

    def state(self) -> dict[str, np.ndarray]:
        if not self._heard:
            return {}
        clients = sorted(self._heard)
        known = np.array([self._heard[client] for client in clients], dtype=np.float64)
        return {"heard": np.array(clients, dtype=np.int64), "known": known}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        if "heard" in state:
            self._heard = dict(zip(state["heard"].tolist(), state["known"].tolist(), strict=True))
