"""Clips a client's update, identically on clients and on the server (McMahan et al., ICLR 2018, arXiv 1710.06963).

    Delta_k = w_k - w_t,    Delta_k <- Delta_k min(1, C / ||Delta_k||)

The norm is that of all parameters together. BatchNorm's buffers are neither counted nor clipped.
"""

import math
from collections.abc import Mapping

import numpy as np


def clip_update(arrays: dict[str, np.ndarray], sent: Mapping[str, np.ndarray], clipping_norm: float) -> bool:
    """Shorten the update to at most `clipping_norm`, up to rounding to the arrays' dtype; leave a shorter one as it is.

    Args:
        arrays: w_k, whose parameters are replaced if the update is too long.
        sent: w_t, the parameters only, in the order in which squares are added up.
        clipping_norm: C, above 0.

    Returns:
        Whether ``||Delta_k|| <= C``, which Andrew et al. call the bit b_k.
    """
    norm = math.sqrt(sum(float(np.square(_difference(arrays[name], old)).sum()) for name, old in sent.items()))
    if norm <= clipping_norm:
        return True
    for name, old in sent.items():
        shortened = old + _difference(arrays[name], old) * (clipping_norm / norm)
        arrays[name] = np.asarray(shortened, dtype=arrays[name].dtype)
    return False


def _difference(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    # C order: a client's convolutions are channels-last and sums follow memory order, but both sides must agree.
    difference: np.ndarray = np.subtract(new, old, dtype=np.float64, order="C")
    return difference
