"""What pickles may call to make arrays of numbers: functions of this module in the place of NumPy's own."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from data.text import shown

DTYPE = re.compile(r"\?|[biuf][1248]")
MOST_DIMENSIONS, LONGEST = 8, 1 << 40


class WrongError(Exception):
    """Why a pickle is refused: the text completes a sentence that starts with the file's name."""


class Name:
    """A name that a pickle asks for, which is all that is made of it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Unfinished:
    """An array or a dtype between its creation and the instruction that says what it is.

    Attributes:
        code: Of a dtype; empty for an array.
        memo: The keys under which the pickle's memo has it.
    """

    __slots__ = ("code", "memo")

    def __init__(self, code: str) -> None:
        self.code = code
        self.memo: list[int] = []

    def finished(self, state: Any) -> Any:
        """The dtype or the array."""
        return _dtype_of(self.code, state) if self.code else _array_of(state)


Call = Callable[[tuple[Any, ...]], Any]


def text_of(value: Any) -> str:
    """A text, which Python 2 wrote as bytes."""
    if type(value) is bytes:
        return value.decode("latin-1")
    if type(value) is not str:
        raise WrongError("has something else in the place of a text")
    return value


def is_size(value: Any) -> bool:
    """Whether this is a length or a place in an array."""
    return type(value) is int and 0 <= value <= LONGEST


def are_sizes(value: Any) -> bool:
    """Whether this is a tuple of few lengths."""
    return type(value) is tuple and len(value) <= MOST_DIMENSIONS and all(map(is_size, value))


def _encoded(args: tuple[Any, ...]) -> bytes:
    """``_codecs.encode(text, "latin1")``, as which Python 3 writes bytes for Python 2."""
    text, coding = args
    if type(text) is not str or text_of(coding) not in ("latin1", "latin-1"):
        raise TypeError
    return text.encode("latin-1")


def _no_bytes(args: tuple[Any, ...]) -> bytes:
    if args:
        raise TypeError
    return b""


def _ordered(args: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty OrderedDict, which is filled by other instructions."""
    if args and not (len(args) == 1 and type(args[0]) is list and not args[0]):
        raise TypeError
    return {}


def _blank_array(args: tuple[Any, ...]) -> Unfinished:
    kind, shape, code = args
    if type(kind) is not Name or kind.text != "numpy.ndarray" or not are_sizes(shape) or text_of(code) != "b":
        raise TypeError
    return Unfinished("")


def _blank_dtype(args: tuple[Any, ...]) -> Unfinished:
    code = text_of(args[0])
    if not DTYPE.fullmatch(code) or len(args) > 3 or any(type(one) not in (bool, int) for one in args[1:]):
        raise WrongError(f"has an array of type {shown(code)}, not of numbers")
    return Unfinished(code)


def _dtype_of(code: str, state: Any) -> np.dtype[Any]:
    """A dtype of numbers: (version, byte order, three things that such dtypes lack, size, alignment, flags)."""
    if type(state) is not tuple or len(state) < 8 or any(one is not None for one in (*state[2:5], *state[8:])):
        raise WrongError("has an array whose type is not one of numbers")
    order = text_of(state[1])
    if order not in ("<", ">", "|") or type(state[7]) is not int or state[7]:
        raise TypeError
    return np.dtype(code) if order == "|" else np.dtype(order + code)


def _array_of(state: Any) -> np.ndarray:
    """An array: (version, shape, dtype, whether its columns lie together, bytes)."""
    _, shape, dtype, is_fortran, raw = state
    return array_of(raw, dtype, shape, "F" if is_fortran else "C")


def array_of(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """Bytes as an array that cannot be written to, if they are exactly as many as it needs."""
    if not isinstance(dtype, np.dtype) or type(raw) is not bytes or not are_sizes(shape) or order not in ("C", "F"):
        raise WrongError("has an array that is not one of numbers")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise WrongError(f"has an array of shape {shown(shape)} with {len(raw):,} bytes, which do not fit it")
    return np.ndarray(shape, dtype, raw, order="F" if order == "F" else "C")


def _from_buffer(args: tuple[Any, ...]) -> np.ndarray:
    """How protocol 5 writes arrays: (bytes, dtype, shape, order)."""
    raw, dtype, shape, order = args
    return array_of(raw, dtype, shape, text_of(order))


def _scalar(args: tuple[Any, ...]) -> Any:
    dtype, raw = args
    return array_of(raw, dtype, ()).item()


CALLS: dict[str, Call] = {
    "_codecs.encode": _encoded,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": _ordered,
    "numpy.core.multiarray._reconstruct": _blank_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _blank_dtype,
}
VALUES = frozenset({"numpy.ndarray"})  # what may be named, but not called
