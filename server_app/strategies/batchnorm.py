"""Tells a model's BatchNorm buffers from its parameters, by the last part of their names.

Running statistics are averaged like weights but take no part in a server optimiser, a distance or a norm: they are
estimates, not directions, and a negative variance turns every later output into NaN. A step counter has no mean: the
largest is kept, in its own dtype. The same holds for any other array that is not floating point.
"""

import numpy as np

VARIANCE = "running_var"
STATISTICS = frozenset({"running_mean", VARIANCE})
COUNTER = "num_batches_tracked"


def is_counter(name: str, dtype: np.dtype) -> bool:
    """Whether the array is a counter, of which the largest is kept."""
    return name.rpartition(".")[2] == COUNTER or not np.issubdtype(dtype, np.floating)


def is_parameter(name: str, dtype: np.dtype) -> bool:
    """Whether the array is trained: floating point, and not one of BatchNorm's buffers."""
    return not is_counter(name, dtype) and name.rpartition(".")[2] not in STATISTICS
