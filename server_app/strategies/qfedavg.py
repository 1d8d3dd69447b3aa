"""q-FedAvg (Li et al., "Fair Resource Allocation in Federated Learning", ICLR 2020, arXiv 1905.10497, Algorithm 2).

    Delta_k = L (w_t - w_k),  h_k = q F_k^(q-1) ||Delta_k||^2 + L F_k^q    with L = 1 / client-learning-rate
    w_{t+1} = w_t - sum_k F_k^q Delta_k / sum_k h_k

This is a mean with weights F_k^q and a step of length ``L sum F_k^q / sum h_k``: clients with a high loss count more,
and the larger q, the more so. Numbers of examples do not count. q = 0 is the unweighted mean.

In the paper, F_k is the loss of w_t on client k. Here, as in Flower, it is the mean loss during training, which costs
no extra pass. BatchNorm's statistics take the same weights, without the step; norms leave them out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from config.parameters import parameter
from config.rules import interval
from messages.keys import TRAIN_LOSS
from server_app.strategies.server_step import Floats, ServerStep

SMALLEST_LOSS = 1e-10  # added to F_k, as in the paper's code and Flower, so that F_k^(q-1) stays finite


@dataclass(kw_only=True, eq=False)
class QFedAvg(ServerStep):
    """Fair aggregation.

    Attributes:
        q: Degree of fairness.
        client_learning_rate: 1 / L; defaults to the learning rate of the round.
        rate_of: That of a round, from 1, if it is to be 1 / L; set by whoever knows the run.
    """

    takes_one_mean = False
    by_number = False

    q: float = parameter(0.1, interval(0, 100))
    client_learning_rate: float = parameter(0.0, interval(0, float("inf"), open_low=True))
    rate_of: Callable[[int], float] | None = field(default=None, init=False)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if self.rate_of:
            self.client_learning_rate = self.rate_of(server_round)
        return super().configure_train(server_round, arrays, config, grid)

    def begin(self) -> None:
        super().begin()
        self._weights = self._h = 0.0

    def weigh(self, arrays: Mapping[str, np.ndarray], metrics: MetricRecord) -> float:
        loss = metrics.get(TRAIN_LOSS)
        if not isinstance(loss, (int, float)) or not 0 <= loss < float("inf"):
            raise ValueError(f"train-loss is {loss!r}; qfedavg needs a number of at least 0 from every client")
        loss += SMALLEST_LOSS
        lipschitz = 1 / self.client_learning_rate
        try:
            weight, slope = float(loss**self.q), float(loss ** (self.q - 1))
        except OverflowError:
            raise ValueError(f"train-loss is {loss!r}, which is too large for a q of {self.q:g}") from None
        self._weights += weight
        self._h += self.q * slope * lipschitz**2 * self.squared_norm(arrays) + lipschitz * weight
        return weight

    def step(self, name: str, delta: Floats) -> Floats:
        return self._weights / (self.client_learning_rate * self._h) * delta
