"""Flower's arrays read and written without copies: the same values and bytes as with NumPy's own functions."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from messages.arrays import all_finite, as_array, as_numpy, take_arrays
from tests.fakes import record

DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_])
ARRAYS = DTYPES.flatmap(lambda dtype: nps.arrays(dtype, nps.array_shapes(min_dims=0, min_side=0, max_side=5)))


@given(ARRAYS, st.booleans())
def test_a_round_trip_equals_flowers_byte_for_byte(value: Any, transpose: bool) -> None:
    value = np.asarray(value.T if transpose else value)
    flowers, array = Array(value), as_array(value)
    assert (array.dtype, array.shape, array.stype, array.data) == (
        flowers.dtype, flowers.shape, flowers.stype, flowers.data,
    )  # fmt: skip
    read = as_numpy(flowers)
    assert (read.dtype, read.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(read, flowers.numpy())
    assert not read.flags.writeable


def test_a_value_is_read_in_place() -> None:
    array = Array(np.arange(6, dtype=np.float32).reshape(2, 3))
    value = as_numpy(array)
    assert value.base is not None
    assert np.shares_memory(value, np.frombuffer(array.data, np.uint8))


def _saved(value: Any, version: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, value, version=version, allow_pickle=True)
    return stream.getvalue()


def _crafted(header: str, values: int = 0) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(values)


GOOD = Array(np.arange(6, dtype=np.float32)).data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "does not start like an array"),
        (b"PK\x03\x04 a zip archive", "does not start like an array"),
        (_saved(np.zeros(3), (2, 0)), "does not start like an array"),
        (GOOD[:-1], "has 23 bytes of values instead of 24"),
        (GOOD + b"\0", "has 25 bytes of values instead of 24"),
        (GOOD[:40], "its header is not that of an array"),
        (GOOD.replace(b"(6,)", b"(9,)"), "has 24 bytes of values instead of 36"),
        (GOOD.replace(b"(6,), }", b"(-6,), }"), "."),
        (GOOD.replace(b"'<f4'", b"'|O' "), "its header is not"),
        (GOOD.replace(b"'<f4'", b"'<f9'"), "."),
        (GOOD.replace(b"{'descr'", b"['descr'"), "."),
        (_saved(np.array([{}], dtype=object), (1, 0)), "its header is not"),
        (_crafted("{'descr': '', 'fortran_order': False, 'shape': (6,), }"), "its header is not"),
        (_crafted("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }"), "its header is not"),
        (_crafted("-" * 9000), "its header is not"),
        (_crafted("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 99 + "1), }", 4), "dimension"),
        (_crafted(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {'9' * 18}, {'9' * 18}), }}"), "too big"),
    ],
)
def test_bytes_that_are_not_an_array_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        as_numpy(Array("float32", (6,), "numpy.ndarray", data))


@given(st.binary(max_size=60), st.integers(0, 152))
def test_damaged_bytes_are_refused_or_give_an_array(data: bytes, at: int) -> None:
    damaged = GOOD[:at] + data + GOOD[at + len(data) :]
    with contextlib.suppress(ValueError):
        assert isinstance(as_numpy(Array("float32", (6,), "numpy.ndarray", damaged)), np.ndarray)


def test_another_serialisation_is_refused() -> None:
    with pytest.raises(ValueError, match="it is serialised as 'torch'"):
        as_numpy(Array("float32", (6,), "torch", GOOD))


def test_taking_empties_the_record() -> None:
    arrays = record({"a": np.ones(2, np.float32), "b": np.zeros(3, np.int64)})
    taken = take_arrays(arrays)
    assert [(name, value.tolist()) for name, value in taken.items()] == [("a", [1, 1]), ("b", [0, 0, 0])]
    assert not arrays


@given(ARRAYS)
def test_all_finite_agrees_with_numpy(value: Any) -> None:
    assert all_finite(value) == bool(np.isfinite(value).all())


def test_a_sum_that_overflows_does_not_count_as_infinity() -> None:
    assert all_finite(np.full(8, np.finfo(np.float32).max, np.float32))
    assert not all_finite(np.array([np.inf, -np.inf], np.float32))
