"""FedAvgM (Hsu et al., 2019, arXiv 1909.06335): momentum on the server.

    v_t = beta v_{t-1} + Delta_t,    w_{t+1} = w_t + eta v_t    with v_{-1} = 0

Flower's class computes the same, but applies momentum to BatchNorm's buffers too. With eta = 1 and beta = 0, the
defaults, it is FedAvg.
"""

from dataclasses import dataclass
from typing import ClassVar

from config.parameters import parameter
from config.rules import interval
from server_app.strategies.server_step import Floats, ServerStep


@dataclass(kw_only=True, eq=False)
class FedAvgM(ServerStep):
    """Server momentum.

    Attributes:
        server_learning_rate: eta.
        server_momentum: beta.
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ("momentum",)

    server_learning_rate: float = parameter(1.0, interval(0, float("inf"), open_low=True))
    server_momentum: float = parameter(0.0, interval(0, 1, open_high=True))

    def step(self, name: str, delta: Floats) -> Floats:
        velocity = self.server_momentum * self.moment("momentum", name, 0.0) + delta
        if self.server_momentum:
            self.keep("momentum", name, velocity)
        return self.server_learning_rate * velocity
