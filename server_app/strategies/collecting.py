"""The base of strategies that need all replies of a round at once, such as a median.

Replies are kept as the bytes that arrived and decoded one tensor at a time, so that a round needs little more memory
than the replies themselves. A rule works on blocks of (replies, columns) and knows nothing about tensors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message, MetricRecord

from messages.arrays import as_numpy
from server_app.stopping import RunStoppedError
from server_app.strategies.batchnorm import is_counter, is_parameter
from server_app.strategies.fedavg import StreamingFedAvg

BLOCK = 1 << 16  # columns that a rule sees at once: its working memory stays in the CPU's cache

Floats = npt.NDArray[np.float64]
Rule = Callable[[np.ndarray], np.ndarray]
"""(replies, columns) float32 to (columns,) floats."""


class HeldReplies:
    """The models of one round.

    Attributes:
        examples: (replies,) float64, the clients' numbers of examples.
        metrics: The clients' metrics, one record per reply.
    """

    def __init__(self, records: list[ArrayRecord], examples: list[float], metrics: Sequence[MetricRecord] = ()) -> None:
        """Hold `records`; `stack` empties them.

        Raises:
            ValueError: They differ in names or shapes.
        """
        first = records[0]
        for record in records[1:]:
            if record.keys() != first.keys():
                raise ValueError(f"arrays differ in {sorted(record.keys() ^ first.keys())[0]!r}")
            for name, array in record.items():
                if tuple(array.shape) != tuple(first[name].shape):
                    raise ValueError(f"{name!r} has shape {array.shape}; it must be {first[name].shape}")
        self._records = records
        self.examples = np.asarray(examples, dtype=np.float64)
        self.metrics = metrics

    def __len__(self) -> int:
        return len(self._records)

    def tensors(self, *, let_go: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """Each array's name and the replies' values, (replies, *shape); `let_go` frees each array afterwards."""
        for name in list(self._records[0]):
            first = as_numpy(self._records[0][name])
            stack = np.empty((len(self), *first.shape), dtype=first.dtype)
            for i, record in enumerate(self._records):
                stack[i] = as_numpy(record[name])
            yield name, stack
            if let_go:
                for record in self._records:
                    del record[name]

    def squared_distances(self) -> Floats:
        """(replies, replies) float64: ``||w_i - w_j||^2`` over all parameters; BatchNorm's buffers do not count.

        Differences are taken before squares are summed. A matrix product of all pairs would be faster, but then one
        reply with huge values would drown the distances between the others in rounding errors.
        """
        distances = np.zeros((len(self), len(self)))
        for name, stack in self.tensors():
            if not is_parameter(name, stack.dtype):
                continue
            for block in blocks(stack):
                exact = block.astype(np.float64)
                for i in range(len(self) - 1):
                    rest = exact[i + 1 :] - exact[i]
                    distances[i, i + 1 :] += np.einsum("ij,ij->i", rest, rest)
        return distances + distances.T


def blocks(stack: np.ndarray) -> Iterator[np.ndarray]:
    """(replies, *shape) as views of (replies, at most `BLOCK` columns)."""
    flat = stack.reshape(len(stack), -1)
    for start in range(0, flat.shape[1], BLOCK):
        yield flat[:, start : start + BLOCK]


def krum_scores(distances: Floats, among: np.ndarray, num_malicious_nodes: int) -> Floats:
    """Krum's scores of the replies `among`: for each, the sum of squared distances to its nearest n - f - 2 others."""
    within = distances[np.ix_(among, among)].copy()
    np.fill_diagonal(within, np.inf)
    nearest = max(1, len(among) - num_malicious_nodes - 2)
    scores: Floats = np.sort(within, axis=1)[:, :nearest].sum(axis=1)
    return scores


@dataclass(kw_only=True, eq=False)
class HoldingStrategy(StreamingFedAvg):
    """Collects a round's replies, then applies one rule to every block of every array except the counters.

    BatchNorm's statistics go through the rule as well, so that a bad client cannot break them either. Every rule
    returns values between the smallest and the largest of a column, so a running variance stays positive.
    """

    holds_all_replies = True
    takes_one_mean = False
    by_number = False

    def rule(self, held: HeldReplies) -> Rule:
        """The function to apply to each block, given all replies."""
        raise NotImplementedError

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        """All replies, the new model as arrays and as bytes, the largest array of each reply decoded, and two blocks.

        The largest array is assumed to be a quarter of the model; it is 21 % of a ResNet-18 and 10 % of a ResNet-50.
        """
        return (replies + 2) * model_bytes + (replies + 1) * model_bytes // 4 + 2 * replies * BLOCK * 8

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        contents = [reply.content for reply in replies if not reply.has_error()]
        if not contents:
            return None, None
        if len(contents) < self.least_replies:
            raise RunStoppedError(
                f"round {server_round}: {type(self).__name__} needs at least {self.least_replies} usable replies"
                f" but got {len(contents)}; a larger 'fraction-train' samples more clients."
            )
        records = [content.array_records.pop(self.arrayrecord_key) for content in contents]
        metrics = [next(iter(content.metric_records.values())) for content in contents]
        examples = [float(one[self.weighted_by_key]) for one in metrics]  # type: ignore[arg-type]
        held = HeldReplies(records, examples, metrics)
        rule = self.rule(held)
        new = ArrayRecord()
        for name, stack in held.tensors(let_go=True):
            if is_counter(name, stack.dtype):
                merged = stack.max(axis=0)
            else:
                merged = np.empty(stack[0].size, dtype=stack.dtype)
                for start, block in enumerate(blocks(stack)):
                    merged[start * BLOCK : (start + 1) * BLOCK] = rule(block)
            new[name] = Array(np.asarray(merged).reshape(stack.shape[1:]))
        return new, self.train_metrics_aggr_fn(contents, self.weighted_by_key)
