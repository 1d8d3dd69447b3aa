"""The latest predictions for each image: a ring that the client keeps from visit to visit."""

import torch
from torch import Tensor

from learning.method import Visit

# In `visit.state`.
HISTORY = "history"  # (n, size, ...): entries of each image, 0 where there is none yet
ENTRIES = "entries"  # (n,) int64: how many each image has ever had


def begin_history(visit: Visit, size: int, *shape: int, dtype: torch.dtype) -> None:
    """Make an empty history at a client's first visit.

    Args:
        visit: The client's.
        size: How many entries each image keeps.
        shape: Of one entry.
        dtype: Of its numbers.
    """
    if HISTORY not in visit.state:
        count, device = len(visit.labels), visit.labels.device
        visit.state[HISTORY] = torch.zeros(count, size, *shape, dtype=dtype, device=device)
        visit.state[ENTRIES] = torch.zeros(count, dtype=torch.int64, device=device)


def remember(visit: Visit, rows: Tensor, entries: Tensor) -> None:
    """Write one entry for each of some images, in place of its oldest if it has as many as it keeps.

    Args:
        visit: The client's.
        rows: (batch,) int64, all different.
        entries: (batch, ...) without gradients.
    """
    history, written = visit.state[HISTORY], visit.state[ENTRIES][rows]
    history[rows, written % history.shape[1]] = entries.to(history.dtype)
    visit.state[ENTRIES][rows] = written + 1
