"""How the server aggregates: one file per strategy, and the table of their names.

A strategy is one of Flower's `Strategy` classes. What the app asks of one beyond that, if it has it, is here.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.serverapp.strategy import Strategy

from server_app.strategies.bulyan import Bulyan
from server_app.strategies.daagg import DaAgg
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategies.fedavgm import FedAvgM
from server_app.strategies.fedexp import FedExP
from server_app.strategies.fedmedian import FedMedian
from server_app.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from server_app.strategies.fedprox import FedProx
from server_app.strategies.fedtrimmedavg import FedTrimmedAvg
from server_app.strategies.krum import Krum, MultiKrum
from server_app.strategies.qfedavg import QFedAvg
from server_app.strategies.rfa import RFA


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint asks of a strategy that remembers something between rounds.

    An object that is built with the same parameters and given the state of another goes on like it, to the bit.
    """

    def state(self) -> dict[str, np.ndarray]:
        """All that later rounds depend on, as arrays under names of the strategy's own; empty if nothing is kept."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave.

        Raises:
            ValueError: It is the state of another strategy.
        """
        ...


@runtime_checkable
class Sized(Protocol):
    """What is known of a strategy's needs before a run starts.

    Attributes:
        holds_all_replies: Whether a round needs the memory of all replies at once.
        least_replies: A round with fewer usable replies cannot be aggregated.
    """

    holds_all_replies: bool

    @property
    def least_replies(self) -> int: ...

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        """About how much memory one `aggregate_train` takes at most, the replies it holds included.

        Args:
            model_bytes: Size of the model's arrays.
            replies: Number of replies in a round.
        """
        ...


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "fedavg": StreamingFedAvg,
    "fedavgm": FedAvgM,
    "fedprox": FedProx,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedexp": FedExP,
    "qfedavg": QFedAvg,
    "fedmedian": FedMedian,
    "fedtrimmedavg": FedTrimmedAvg,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "rfa": RFA,
    "daagg": DaAgg,
}
