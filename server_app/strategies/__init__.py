"""How the server aggregates: one file per strategy, and the table of their names.

A strategy is a subclass of Flower's `Strategy`. The protocols here are optional: the app uses what a strategy has.
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
    """A strategy that remembers something between rounds, for checkpoints.

    An object built with the same parameters that loads another's state continues like it, bit for bit.
    """

    def state(self) -> dict[str, np.ndarray]:
        """Everything that later rounds depend on, as arrays under the strategy's own names; empty if nothing does."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: It is another strategy's state.
        """
        ...


@runtime_checkable
class Sized(Protocol):
    """A strategy whose needs are known before a run starts.

    Attributes:
        holds_all_replies: Whether a round holds all replies in memory at once.
        least_replies: A round with fewer usable replies cannot be aggregated.
    """

    holds_all_replies: bool

    @property
    def least_replies(self) -> int: ...

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        """About how many bytes one `aggregate_train` takes at most, including the replies that it holds.

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
