"""Flower's arrays as NumPy arrays, without a copy: both sides handle every model more than once.

An `Array` holds the bytes that `numpy.save` wrote. `numpy.load` would copy them, and parse the same few headers again
for each reply, as Python literals.
"""

import math
import re
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy

MAGIC = b"\x93NUMPY\x01\x00"
LENGTH = slice(8, 10)  # of the header that follows, little-endian
# What `numpy.save` writes and nothing else. NumPy itself evaluates the header as a Python literal, which a sender can
# make as deep or as odd as it likes.
HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[biuf][0-9]{1,2})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,1000})\), \}"
    rb" {0,200}\n"
)
SHAPE = re.compile(rb"(?:[0-9]{1,18},|[0-9]{1,18}(?:, [0-9]{1,18})+)?")


def as_numpy(array: Array) -> np.ndarray:
    """The value, read-only, in the memory of `array`'s bytes.

    The bytes decide; what `array.dtype` and `array.shape` claim is ignored.

    Raises:
        ValueError: The bytes are not one complete array of numbers in the format of `numpy.save`.
    """
    data: bytes | memoryview = array.data if isinstance(array.data, bytes) else memoryview(array.data)
    if array.stype != "numpy.ndarray":
        raise ValueError(f"it is serialised as {array.stype!r}")
    if data[:8] != MAGIC:
        raise ValueError("it does not start like an array")
    start = 10 + int.from_bytes(data[LENGTH], "little")
    shape, fortran, dtype = _header(bytes(data[10:start]))
    count = math.prod(shape)  # exact, whatever the header claims
    if len(data) - start != count * dtype.itemsize:
        raise ValueError(f"it has {len(data) - start} bytes of values instead of {count * dtype.itemsize}")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=4096)
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    found = HEADER.fullmatch(header)
    if not found or not SHAPE.fullmatch(found[3]):
        raise ValueError("its header is not that of an array of numbers")
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError:
        raise ValueError(f"its dtype is {found[1].decode()!r}") from None
    return tuple(int(size) for size in found[3].replace(b",", b" ").split()), found[2] == b"True", dtype


def as_array(value: np.ndarray) -> Array:
    """The same bytes as ``Array(value)``, with one copy instead of three."""
    stream = BytesIO()
    npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(value))
    order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    values = value.reshape(-1, order=order)  # a view of what is contiguous
    return Array(str(value.dtype), tuple(value.shape), "numpy.ndarray", b"".join((stream.getbuffer(), values.data)))


def take_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Take the arrays out of a record, which is left empty.

    Flower's records are part of reference cycles: anything left in one stays in memory until Python's garbage collector
    happens to run.
    """
    return {name: as_numpy(record.pop(name)) for name in list(record)}


def all_finite(value: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; integers never are."""
    if not np.issubdtype(value.dtype, np.inexact):
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN and infinity never leave a sum, so a finite sum proves it in half the time. One that is not finite may
        # simply have overflowed.
        return bool(np.isfinite(np.sum(value)) or np.isfinite(value).all())
