"""The base of strategies that treat the mean update as a gradient (Reddi et al., ICLR 2021, Algorithm 1).

    Delta_t = sum_k p_k w_k - w_t,  w_{t+1} = w_t + step(Delta_t)    with p_k = n_k / sum n unless a strategy differs

Only parameters take the step. BatchNorm's running statistics become the clients' mean, a convex combination, so a
running variance never becomes negative; of its counters the largest is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from messages.arrays import as_numpy
from server_app.strategies.batchnorm import is_parameter
from server_app.strategies.fedavg import StreamingFedAvg

Floats = npt.NDArray[np.float64]


@dataclass(kw_only=True, eq=False)
class ServerStep(StreamingFedAvg):
    """Remembers w_t, forms Delta_t, and keeps the moments that `MOMENTS` names, in the parameters' dtype."""

    MOMENTS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sent: dict[str, np.ndarray] = {}
        self._moments: dict[str, np.ndarray] = {}

    def step(self, name: str, delta: Floats) -> Floats:
        """What is added to parameter `name`."""
        raise NotImplementedError

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        return super().peak_bytes(model_bytes, replies) + (1 + len(self.MOMENTS)) * model_bytes

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        decoded = ((name, as_numpy(array)) for name, array in arrays.items())
        self._sent = {name: array for name, array in decoded if is_parameter(name, array.dtype)}
        return super().configure_train(server_round, arrays, config, grid)

    def begin(self) -> None:
        if not self._sent:
            raise RuntimeError("aggregate_train needs the arrays of configure_train, which was not called")

    def update(self, arrays: Mapping[str, np.ndarray]) -> Iterable[tuple[str, Floats]]:
        """`arrays` - w_t in float64, parameter by parameter."""
        for name, old in self._sent.items():
            yield name, np.subtract(arrays[name], old, dtype=np.float64)

    def squared_norm(self, arrays: Mapping[str, np.ndarray]) -> float:
        """``||arrays - w_t||^2`` over all parameters."""
        return sum(float(np.vdot(delta, delta)) for _, delta in self.update(arrays))

    def finish(self, mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, delta in self.update(mean):
            old = self._sent[name]
            mean[name] = np.asarray(old + self.step(name, delta), dtype=old.dtype)
        return mean

    def moment(self, kind: str, name: str, start: float) -> Floats:
        """A moment of parameter `name` after the last round, in float64; initially `start` everywhere."""
        old = self._sent[name]
        moment = self._moments.get(f"{kind}/{name}")
        if moment is None:
            return np.full(old.shape, start)
        if moment.shape != old.shape:
            raise ValueError(f"the saved {kind} of {name!r} has shape {moment.shape}; it must be {old.shape}")
        return moment.astype(np.float64)

    def keep(self, kind: str, name: str, moment: Floats) -> None:
        self._moments[f"{kind}/{name}"] = np.asarray(moment, dtype=self._sent[name].dtype)

    def state(self) -> dict[str, np.ndarray]:
        """The moments as ``<kind>/<parameter>``; w_t arrives with each `configure_train`."""
        return dict(self._moments)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for key in state:
            if key.partition("/")[0] not in self.MOMENTS:
                known = ", ".join(self.MOMENTS) or "nothing"
                raise ValueError(f"{type(self).__name__} keeps {known}, but {key!r} was saved")
        self._moments = dict(state)
