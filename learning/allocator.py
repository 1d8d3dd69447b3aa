"""Memory that training frees on a CPU stays with the process, for the next batch.

The C library's allocator gives large blocks back to the system as soon as they are freed, and gets the same ones again
a few milliseconds later, as pages that the system must first fill with zeros: 459,000 pages for one step of a ResNet-50
on 64 images of 224 pixels, more than a quarter of the step's time. The process keeps what its largest step needed, and
some fragmentation; `python -m probe` counts it.
"""

import ctypes
from functools import cache

# Of mallopt(3), as glibc's <malloc.h> numbers them.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = 2**31 - 1
PAD_BYTES = 64 << 20  # by which the heap grows at a time


@cache
def keep_freed_memory() -> bool:
    """From now on, take large blocks from the heap and never shrink it; False if the C library cannot be told so."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD_BYTES))
    return all(mallopt(*setting) == 1 for setting in settings)
