"""A weighted mean of models, one model at a time."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from server_app.strategies.batchnorm import is_counter

BLOCK = 1 << 17  # numbers whose products stay in the CPU's cache; smaller blocks make threads wait for each other
SPAN = 1 << 20  # numbers that a thread takes at a time
Span = tuple[np.ndarray, np.ndarray, bool]  # sums, values to add, whether they are the first
THREADS = min(4, os.cpu_count() or 1)  # enough to read memory at full speed


class RunningMean:
    """``sum_k n_k w_k / sum_k n_k`` over named arrays, added in the given order and never held together.

    Sums are float64, so the result does not depend on the size of the weights and is rounded only once, when cast back
    to each array's dtype. Counters (BatchNorm's `num_batches_tracked`) have no mean: the largest is kept.
    """

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._dtypes: dict[str, np.dtype] = {}
        self.weight = 0.0

    def add(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Fold one model in.

        Args:
            arrays: The same names, shapes and dtypes at every call.
            weight: Number of examples, above 0.

        Raises:
            ValueError: The names or shapes differ from before, or the weight is not positive; nothing is added.
        """
        if not (np.isfinite(weight) and weight > 0):
            raise ValueError(f"num-examples is {weight:g}; it must be above 0")
        if self._sums and arrays.keys() != self._sums.keys():
            raise ValueError(f"arrays differ in {sorted(arrays.keys() ^ self._sums.keys())[0]!r}")
        for name, array in arrays.items():
            if self._sums and array.shape != self._sums[name].shape:
                raise ValueError(f"{name!r} has shape {array.shape}; it must be {self._sums[name].shape}")
        spans: list[Span] = []
        for name, array in arrays.items():
            known = self._sums.get(name)
            self._dtypes[name] = array.dtype
            if is_counter(name, array.dtype):
                self._sums[name] = np.array(array if known is None else np.maximum(known, array))
                continue
            total = self._sums[name] = np.empty(array.shape) if known is None else known
            flat, values = total.reshape(-1), array.reshape(-1)
            for start in range(0, values.size, SPAN):
                span = slice(start, start + SPAN)
                spans.append((flat[span], values[span], known is None))
        if sum(values.size for _, values, _ in spans) <= SPAN:
            _fold(spans, weight)
        else:
            spans.sort(key=lambda span: -span[0].size)  # so that all threads get about the same amount
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(_fold, (spans[thread::THREADS] for thread in range(THREADS)), [weight] * THREADS))
        self.weight += weight

    def take(self) -> dict[str, np.ndarray]:
        """The mean, each array in its own dtype; empties the sums one by one, so that no array exists twice for long.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._sums:
            raise ValueError("the mean of no model")
        means = {}
        for name in list(self._sums):
            total = self._sums.pop(name)
            if not is_counter(name, self._dtypes[name]):
                np.divide(total, self.weight, out=total)
            means[name] = total.astype(self._dtypes[name], copy=False)
        return means


def _fold(spans: list[Span], weight: float) -> None:
    """``total += weight * values`` in float64, or ``=`` for the first; the result does not depend on the spans."""
    buffer = np.empty(BLOCK)
    for total, values, first in spans:
        for start in range(0, values.size, BLOCK):
            part = total[start : start + BLOCK]
            product = part if first else buffer[: part.size]
            np.copyto(product, values[start : start + BLOCK])
            np.multiply(product, weight, out=product)
            if not first:
                np.add(part, product, out=part)
