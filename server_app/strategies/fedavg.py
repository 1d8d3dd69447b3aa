"""FedAvg (McMahan et al., AISTATS 2017): the mean of the clients' models, weighted by their numbers of examples.

    w_{t+1} = sum_{k in S_t} n_k w_k / sum_{k in S_t} n_k

S_t is a uniform sample of the clients. BatchNorm's running mean and variance are averaged like weights; its integer
step counters keep their dtype (Flower's own FedAvg returns them as float64).
"""

from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from server_app.strategies.running_mean import RunningMean


class StreamingFedAvg(FedAvg):
    """Flower's FedAvg with its sampling, and an aggregation that holds one reply at a time."""

    def __init__(self, *, min_train_nodes: int = 1, min_evaluate_nodes: int = 1, min_available_nodes: int = 1) -> None:
        for name, value in (
            ("min-train-nodes", min_train_nodes),
            ("min-evaluate-nodes", min_evaluate_nodes),
            ("min-available-nodes", min_available_nodes),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1")
        super().__init__(
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold each valid reply into the running mean and let go of its arrays."""
        mean = RunningMean()
        contents: list[RecordDict] = []
        for reply in replies:
            if reply.has_error():
                continue
            content = reply.content
            weight = next(iter(content.metric_records.values()))[self.weighted_by_key]
            arrays = content.array_records[self.arrayrecord_key]
            mean.add({name: array.numpy() for name, array in arrays.items()}, float(weight))  # type: ignore[arg-type]
            del content.array_records[self.arrayrecord_key], arrays
            contents.append(content)
        if not contents:
            return None, None
        averaged = ArrayRecord({name: Array(value) for name, value in mean.result().items()})
        return averaged, self.train_metrics_aggr_fn(contents, self.weighted_by_key)
