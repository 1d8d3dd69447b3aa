"""FedAvg (McMahan et al., AISTATS 2017): the mean of the clients' models, weighted by their numbers of examples.

    w_{t+1} = sum_{k in S_t} n_k w_k / sum_{k in S_t} n_k

S_t is a uniform sample of the clients. BatchNorm's running mean and variance are averaged like weights; its integer
step counters keep their dtype (Flower's own FedAvg returns them as float64).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from config.parameters import check_parameters, parameter
from config.rules import at_least
from messages.arrays import as_array, take_arrays
from server_app.strategies.running_mean import RunningMean


@dataclass(kw_only=True, eq=False)
class StreamingFedAvg(FedAvg):
    """Flower's FedAvg with its sampling, and an aggregation that holds one reply at a time.

    The other strategies derive from it. Its fields and theirs are the parameters that `strategy-args` may set.

    Attributes:
        min_train_nodes: Sample at least this many clients for training, or all if there are fewer.
        min_evaluate_nodes: Sample at least this many clients for evaluation, or all if there are fewer.
        min_available_nodes: Hold the roll call once this many clients are connected (see `server_app.attendance`).
    """

    holds_all_replies: ClassVar[bool] = False  # whether a round holds all replies in memory at once
    handles_batchnorm: ClassVar[bool] = True  # if not, it sees the parameters only
    takes_one_mean: ClassVar[bool] = True  # whether the rule is the same if it sees only the replies' plain mean
    by_number: ClassVar[bool] = True  # whether each number is aggregated on its own, so that networks do not mix

    min_train_nodes: int = parameter(1, at_least(1))
    min_evaluate_nodes: int = parameter(1, at_least(1))
    min_available_nodes: int = parameter(1, at_least(1))

    def __post_init__(self) -> None:
        check_parameters(self)
        super().__init__(
            min_train_nodes=self.min_train_nodes,
            min_evaluate_nodes=self.min_evaluate_nodes,
            min_available_nodes=self.min_available_nodes,
        )

    @property
    def least_replies(self) -> int:
        """A round with fewer usable replies cannot be aggregated."""
        return 1

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        """Bytes of one `aggregate_train`: a reply as bytes and as arrays, its float64 sums, the mean twice."""
        return 6 * model_bytes

    def state(self) -> dict[str, np.ndarray]:
        """See `server_app.strategies.Stateful`."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but {next(iter(state))!r} was saved")

    def begin(self) -> None:
        """Called before the first reply of a round."""

    def weigh(self, arrays: Mapping[str, np.ndarray], metrics: MetricRecord) -> float:
        """The weight of one reply in the mean."""
        return float(metrics[self.weighted_by_key])  # type: ignore[arg-type]

    def finish(self, mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The next global model, given the mean of the replies."""
        return mean

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold each valid reply into the running mean and free its arrays."""
        mean = RunningMean()
        contents: list[RecordDict] = []
        self.begin()
        for reply in replies:
            if reply.has_error():
                continue
            content = reply.content
            metrics = next(iter(content.metric_records.values()))
            arrays = take_arrays(content.array_records[self.arrayrecord_key])
            mean.add(arrays, self.weigh(arrays, metrics))
            del arrays
            contents.append(content)
        if not contents:
            return None, None
        new = self.finish(mean.take())
        arrays_out = ArrayRecord({name: as_array(new.pop(name)) for name in list(new)})
        return arrays_out, self.train_metrics_aggr_fn(contents, self.weighted_by_key)
