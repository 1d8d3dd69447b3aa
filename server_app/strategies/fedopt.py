"""FedAdagrad, FedAdam and FedYogi (Reddi et al., ICLR 2021, arXiv 2003.00295, Algorithm 2).

    m_t = beta_1 m_{t-1} + (1 - beta_1) Delta_t
    v_t = v_{t-1} + Delta_t^2                                            FedAdagrad, with beta_1 = 0
    v_t = beta_2 v_{t-1} + (1 - beta_2) Delta_t^2                        FedAdam
    v_t = v_{t-1} - (1 - beta_2) Delta_t^2 sign(v_{t-1} - Delta_t^2)     FedYogi
    w_{t+1} = w_t + eta m_t / (sqrt(v_t) + tau)                          with m_{-1} = 0, v_{-1} = tau^2

Defaults are Flower's. Its classes differ from the paper in three ways: v starts at 0, where the paper requires at least
tau^2; its FedAdam multiplies eta by Adam's bias correction, with round + 1 as the step; and BatchNorm's buffers go
through the optimiser, which can make a running variance negative. Its `eta_l` is only logged: the clients' learning
rate is the key `learning-rate`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from config.parameters import parameter
from config.rules import interval
from server_app.strategies.server_step import Floats, ServerStep

POSITIVE = interval(0, float("inf"), open_low=True)
DECAY = interval(0, 1, open_high=True)


@dataclass(kw_only=True, eq=False)
class AdaptiveStep(ServerStep):
    """What all three share: the step, given `second_moment`.

    Attributes:
        eta: Server learning rate.
        tau: Degree of adaptivity; the smaller it is, the more step sizes differ between parameters.
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ("first-moment", "second-moment")
    beta_1 = 0.0

    eta: float = parameter(0.1, POSITIVE)
    tau: float = parameter(1e-3, POSITIVE)

    def second_moment(self, old: Floats, square: Floats) -> Floats:
        """v_t, given v_{t-1} and Delta_t^2."""
        raise NotImplementedError

    def step(self, name: str, delta: Floats) -> Floats:
        first = delta
        if self.beta_1:
            first = self.beta_1 * self.moment("first-moment", name, 0.0) + (1 - self.beta_1) * delta
            self.keep("first-moment", name, first)
        second = self.second_moment(self.moment("second-moment", name, self.tau**2), delta**2)
        self.keep("second-moment", name, second)
        step: Floats = self.eta * first / (np.sqrt(second) + self.tau)
        return step


@dataclass(kw_only=True, eq=False)
class FedAdagrad(AdaptiveStep):
    """Adagrad on the server."""

    def second_moment(self, old: Floats, square: Floats) -> Floats:
        return old + square


@dataclass(kw_only=True, eq=False)
class FedAdam(AdaptiveStep):
    """Adam on the server.

    Attributes:
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
    """

    beta_1: float = parameter(0.9, DECAY)
    beta_2: float = parameter(0.99, DECAY)

    def second_moment(self, old: Floats, square: Floats) -> Floats:
        return self.beta_2 * old + (1 - self.beta_2) * square


@dataclass(kw_only=True, eq=False)
class FedYogi(AdaptiveStep):
    """Yogi on the server: v follows Delta^2 in steps of that size, so it falls no faster than it rises.

    Attributes:
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
    """

    eta: float = parameter(0.01, POSITIVE)
    beta_1: float = parameter(0.9, DECAY)
    beta_2: float = parameter(0.99, DECAY)

    def second_moment(self, old: Floats, square: Floats) -> Floats:
        new: Floats = old - (1 - self.beta_2) * square * np.sign(old - square)
        return new
