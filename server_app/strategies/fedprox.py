"""FedProx (Li et al., MLSys 2020, arXiv 1812.06127): clients stay near the global model.

    client k minimises F_k(w) + mu / 2 ||w - w_t||^2,  the server averages as in FedAvg

Flower's class only sends mu; the term itself is in `learning.training`, over the trainable parameters. The paper tries
mu in {0.001, 0.01, 0.1, 1}. FNBench's code uses the unsquared norm of each tensor instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from logging import WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common import log
from flwr.serverapp import Grid

from config.parameters import parameter
from config.rules import interval
from messages.keys import PROXIMAL_MU
from server_app.strategies.fedavg import StreamingFedAvg


@dataclass(kw_only=True, eq=False)
class FedProx(StreamingFedAvg):
    """FedAvg with a proximal term on the clients.

    Attributes:
        proximal_mu: mu; 0, Flower's default, is FedAvg.
    """

    proximal_mu: float = parameter(0.0, interval(0, float("inf")))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.proximal_mu:
            log(WARNING, "'strategy' is 'fedprox' with proximal-mu 0, which is FedAvg; set it in 'strategy-args'.")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config[PROXIMAL_MU] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)
