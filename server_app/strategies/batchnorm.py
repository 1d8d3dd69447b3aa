"""Which arrays of a model are BatchNorm's buffers and which are parameters, told by the last part of their names.

Running statistics are averaged like weights and take no part in a server optimiser, a distance or a norm: they are
estimates, not directions, and a negative variance makes every later output NaN. The step counter has no mean; the
largest is kept, in its own dtype. So is any other array that is not floating point.
"""

import numpy as np

STATISTICS = frozenset({"running_mean", "running_var"})
COUNTER = "num_batches_tracked"


def is_counter(name: str, dtype: np.dtype) -> bool:
    """Whether the array counts something, so that the largest is kept."""
    return name.rpartition(".")[2] == COUNTER or not np.issubdtype(dtype, np.floating)


def is_parameter(name: str, dtype: np.dtype) -> bool:
    """Whether the array is trained: floating point, and none of BatchNorm's buffers."""
    return not is_counter(name, dtype) and name.rpartition(".")[2] not in STATISTICS
