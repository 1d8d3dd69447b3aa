"""Keeps BatchNorm away from a strategy: its buffers from one that does not know them, or all of it.

Flower's own classes treat all arrays alike: FedAvg averages the step counters into float64, and FedAdam, FedYogi and
FedAdagrad update running statistics as if they were weights, until a variance is negative and the next output NaN. Here
the strategy sees the parameters only, both in what it sends and in what it receives. Statistics become the clients'
mean, weighted by numbers of examples; counters become the largest; parameters keep the model's dtype.

With ``batchnorm = "local"`` no strategy sees BatchNorm's weights either, since clients train them from their own and
not from the global model: their mean serves the server's evaluation and clients that are visited for the first time.
"""

import types
from collections.abc import Iterable, Iterator

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from messages.arrays import as_numpy
from messages.keys import ARRAYS, NUM_EXAMPLES
from server_app.stopping import RunStoppedError
from server_app.strategies.batchnorm import is_parameter
from server_app.strategies.running_mean import RunningMean


def with_buffers_apart(cls: type[Strategy]) -> type[Strategy]:
    """A class like `cls` and with its name, whose methods see parameters only."""
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    return types.new_class(cls.__name__, (BuffersApart, cls), exec_body=lambda body: body.update(names))


def keep_apart(strategy: Strategy, names: frozenset[str]) -> None:
    """Let a strategy that exists see no array of these names from now on, which become the replies' mean."""
    cls = type(strategy)
    strategy.__class__ = types.new_class(cls.__name__, (NamesApart, cls))
    strategy.names_apart = names  # type: ignore[attr-defined]


class BuffersApart(Strategy):
    """A mixin: place it before a Strategy in the MRO."""

    def is_apart(self, name: str, dtype: np.dtype) -> bool:
        """Whether the strategy must not see an array."""
        return not is_parameter(name, dtype)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy configure the parameters, and add the buffers to its messages."""
        self._dtypes = {name: as_numpy(array).dtype for name, array in arrays.items()}
        parameters = {name: array for name, array in arrays.items() if not self.is_apart(name, self._dtypes[name])}
        configured = super().configure_train(server_round, ArrayRecord(parameters), config, grid)  # type: ignore[safe-super]
        messages = list(configured)
        completed: dict[int, ArrayRecord] = {}  # messages share one record, so that memory holds it once
        for message in messages:
            record = message.content.array_records.get(ARRAYS)
            if record is None or record.keys() == arrays.keys():
                continue
            if id(record) not in completed:
                completed[id(record)] = ArrayRecord({name: record.get(name, array) for name, array in arrays.items()})
            message.content[ARRAYS] = completed[id(record)]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy aggregate the parameters, and add the mean of the buffers.

        Raises:
            RunStoppedError: The strategy returned other arrays than the model's parameters.
        """
        buffers = {name for name, dtype in self._dtypes.items() if self.is_apart(name, dtype)}
        mean = RunningMean()
        stripped = self._parameters_of(replies, buffers, mean)
        new, metrics = super().aggregate_train(server_round, stripped)  # type: ignore[safe-super]
        if new is None:
            return None, metrics
        if new.keys() | buffers != self._dtypes.keys():
            name = type(self).__name__
            raise RunStoppedError(f"round {server_round}: {name} returned other arrays than the model's parameters.")
        means = mean.take() if buffers else {}
        merged = ArrayRecord()
        for name, dtype in self._dtypes.items():
            value = means[name] if name in buffers else new[name].numpy()  # not removed: a class may keep it
            merged[name] = Array(np.asarray(value, dtype=dtype))
        return merged, metrics

    def _parameters_of(self, replies: Iterable[Message], buffers: set[str], mean: RunningMean) -> Iterator[Message]:
        """The replies without their buffers, which go into `mean`."""
        key = getattr(self, "weighted_by_key", NUM_EXAMPLES)
        for reply in replies:
            if not reply.has_error():
                record = reply.content.array_records[ARRAYS]
                weight = next(iter(reply.content.metric_records.values()))[key]
                mean.add({name: as_numpy(record.pop(name)) for name in self._dtypes if name in buffers}, float(weight))  # type: ignore[arg-type]
            yield reply


class NamesApart(BuffersApart):
    """Keeps arrays of certain names away."""

    names_apart: frozenset[str] = frozenset()

    def is_apart(self, name: str, dtype: np.dtype) -> bool:
        return name in self.names_apart
