"""A weighted mean of models, one model at a time."""

from collections.abc import Mapping

import numpy as np

from server_app.strategies.buffers import is_counter


class RunningMean:
    """``sum_k n_k w_k / sum_k n_k`` over named arrays, added in the order given and never held together.

    Sums are float64, so that the result does not depend on how large the weights are and rounds only once, when it is
    cast back to each array's own dtype. Counters (BatchNorm's `num_batches_tracked`) have no mean: the largest is kept.
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
            ValueError: Other names or shapes than before, or a weight that is not positive. Nothing is added then.
        """
        if not (np.isfinite(weight) and weight > 0):
            raise ValueError(f"num-examples is {weight:g}; it must be above 0")
        if self._sums and arrays.keys() != self._sums.keys():
            raise ValueError(f"arrays differ in {sorted(arrays.keys() ^ self._sums.keys())[0]!r}")
        for name, array in arrays.items():
            if self._sums and array.shape != self._sums[name].shape:
                raise ValueError(f"{name!r} has shape {array.shape}; it must be {self._sums[name].shape}")
        for name, array in arrays.items():
            if is_counter(name, array.dtype):
                known = self._sums.get(name)
                self._sums[name] = array.copy() if known is None else np.maximum(known, array)
            elif name in self._sums:
                self._sums[name] += np.multiply(array, weight, dtype=np.float64)
            else:
                self._sums[name] = np.multiply(array, weight, dtype=np.float64)
            self._dtypes[name] = array.dtype
        self.weight += weight

    def result(self) -> dict[str, np.ndarray]:
        """The mean, each array in its own dtype.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._sums:
            raise ValueError("the mean of no model")
        means = {}
        for name, total in self._sums.items():
            mean = total if is_counter(name, self._dtypes[name]) else total / self.weight
            means[name] = np.asarray(mean, dtype=self._dtypes[name])  # arithmetic turns 0-d arrays into scalars
        return means
