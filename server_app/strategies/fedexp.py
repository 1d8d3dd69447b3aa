"""FedExP (Jhunjhunwala et al., ICLR 2023, arXiv 2301.09604): a longer server step when clients disagree.

    Delta_k = w_k - w_t,  p_k = n_k / sum n,  Delta_t = sum_k p_k Delta_k
    eta_g = max(1, sum_k p_k ||Delta_k||^2 / (2 (||Delta_t||^2 + epsilon)))
    w_{t+1} = w_t + eta_g Delta_t

Norms cover the parameters only; BatchNorm's statistics are simply averaged. The paper's formula has equal p_k and
divides by the number of clients. Its official code weights as here, but also multiplies epsilon by the number of
clients, decays it each round, and evaluates the mean of the last two models, none of which is done here. FNBench's code
compares with the model of round 0, which makes it FedAvg.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import MetricRecord

from config.parameters import parameter
from config.rules import interval
from server_app.strategies.server_step import Floats, ServerStep


@dataclass(kw_only=True, eq=False)
class FedExP(ServerStep):
    """Extrapolation.

    Attributes:
        epsilon: Keeps eta_g small when Delta_t is small.
    """

    takes_one_mean = False
    by_number = False

    epsilon: float = parameter(1e-3, interval(0, float("inf"), open_low=True))

    def begin(self) -> None:
        super().begin()
        self._squares = self._examples = 0.0

    def weigh(self, arrays: Mapping[str, np.ndarray], metrics: MetricRecord) -> float:
        examples = super().weigh(arrays, metrics)
        self._squares += examples * self.squared_norm(arrays)
        self._examples += examples
        return examples

    def finish(self, mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        spread = self._squares / self._examples
        self._server_rate = max(1.0, spread / (2 * (self.squared_norm(mean) + self.epsilon)))
        return super().finish(mean)

    def step(self, name: str, delta: Floats) -> Floats:
        return self._server_rate * delta
