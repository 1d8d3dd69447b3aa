"""Pickles of data are read; all others are refused, and nothing in them is run."""

import collections
import contextlib
import os
import pickle
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.data.cifar import as_python2
from data import pickles
from data.errors import DataError
from data.pickles import read_pickle
from data.torch_files import read_torch
from tests.data.hostile_pickles import hostile
from tests.data.made_cifar import in_a_row, zipped

PLACE = Path("file")
NUMBERS = [np.dtype(code) for code in ("?", "u1", "i1", "<i2", ">i4", "<i8", ">u8", "<f2", "<f4", ">f8")]
KEYS = st.text(max_size=4) | st.binary(max_size=4) | st.integers(-(2**70), 2**70)
LEAVES = st.none() | st.booleans() | KEYS | st.floats(allow_nan=False) | st.text(min_size=300, max_size=310)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner), max_leaves=12
)


def refused(data: bytes, sentence: str = "", read: Callable[[bytes, Path], Any] = read_pickle) -> None:
    with pytest.raises(DataError) as error:
        read(data, PLACE)
    assert str(error.value).startswith("file ")
    assert str(error.value).count("\n") == 0
    assert sentence in str(error.value)


def damaged_or_data(data: bytes) -> None:
    """Whatever the bytes are, they are read or refused."""
    with contextlib.suppress(DataError):
        read_pickle(data, PLACE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(value=VALUES)
@settings(max_examples=25, deadline=None)
def test_plain_values_come_back(protocol: int, value: Any) -> None:
    assert read_pickle(pickle.dumps(value, protocol), PLACE) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_arrays_come_back(protocol: int, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(NUMBERS))
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0), elements=st.just(1)))
    array = np.asfortranarray(array) if data.draw(st.booleans()) else array
    flat = array.reshape(-1)
    flat[:] = np.arange(flat.size) % 2
    both, again = read_pickle(pickle.dumps({"x": array, "y": [array]}, protocol), PLACE).values()
    assert again[0] is both
    assert both.dtype == array.dtype
    assert both.shape == array.shape
    assert np.array_equal(both, array)
    assert not both.flags.writeable


def test_numpys_old_and_new_names_are_the_same() -> None:
    new = pickle.dumps(np.arange(3), 2)
    assert b"numpy._core.multiarray" in new
    for data in (new, new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")):
        assert read_pickle(data, PLACE).tolist() == [0, 1, 2]
    assert read_pickle(pickle.dumps([np.int64(-3), np.float32(0.5)], 4), PLACE) == [-3, 0.5]


def test_ordered_dicts_are_dicts() -> None:
    value = collections.OrderedDict([("b", 1), ("a", 2)])
    for protocol in range(5):
        assert list(read_pickle(pickle.dumps(value, protocol), PLACE).items()) == [("b", 1), ("a", 2)]


def test_texts_of_python_2_are_bytes() -> None:
    """Written by hand as its cPickle does; Python's own reader with `encoding="bytes"` is the judge."""
    data = as_python2(
        {b"labels": [6, 300, -1], b"label_names": [b"\xe9"], b"data": np.arange(6, dtype="u1").reshape(2, 3)}
    )
    assert data.startswith(b"\x80\x02}(U\x06labels](K\x06J")
    found, judge = read_pickle(data, PLACE), pickle.loads(data, encoding="bytes")
    assert found[b"labels"] == judge[b"labels"] == [6, 300, -1]
    assert found[b"label_names"] == judge[b"label_names"] == [b"\xe9"]
    assert found[b"data"].tolist() == judge[b"data"].tolist() == [[0, 1, 2], [3, 4, 5]]


CASES = list(hostile(Path("mark")))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["pickle", "zip", "in a row"])
def test_hostile_files_are_refused_and_nothing_runs(case: str, form: str, tmp_path: Path) -> None:
    data = hostile(tmp_path / "mark")[case]
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes({"pickle": data, "zip": zipped(data), "in a row": in_a_row(data)}[form])
    with pytest.raises(DataError) as error:
        read_pickle(path.read_bytes(), path) if form == "pickle" else read_torch(path)
    assert str(error.value).startswith(f"{path} ")
    assert str(error.value).count(". ") == 0
    assert list(tmp_path.iterdir()) == [path]
    if case.startswith("os.system"):
        assert f"{path} asks for '{os.name}.system', which was not run; it must be" in str(error.value)


def test_the_hostile_file_would_do_what_it_says(tmp_path: Path) -> None:
    """Or the tests above would show nothing."""
    for case in ("os.system 2", "eval"):
        mark = tmp_path / case.partition(" ")[0]
        pickle.loads(hostile(mark)[case])
        assert mark.exists()


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.array([1, None], object), "'O8'"),
        (np.array(["a"]), "'U1'"),
        (np.array([b"a"]), "'S1'"),
        (np.zeros(2, [("a", "i4"), ("b", "f8")]), "'V12'"),
        (np.array(["2020-01-01"], "M8[D]"), "'M8'"),
        (np.zeros(2, "c8"), "'c8'"),
    ],
)  # fmt: skip
def test_arrays_of_anything_but_numbers_are_refused(array: np.ndarray, word: str) -> None:
    for protocol in (2, 4, 5):
        refused(pickle.dumps(array, protocol), f"file has an array of type {word}, not of numbers; it must be")


def test_arrays_that_do_not_fit_their_bytes_are_refused() -> None:
    data = pickle.dumps(np.arange(6, dtype="u1").reshape(2, 3), 2)
    assert b"K\x02K\x03\x86" in data
    refused(data.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"), "of shape (2, 4) with 6 bytes, which do not fit it")
    refused(data.replace(b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86"), "not one of numbers")
    refused(data.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"), "which do not fit it")
    refused(data.replace(b"K\x02K\x03\x86", b"K\x00\x8a\x09" + b"\xff" * 8 + b"\x00\x86"), "not one of numbers")


def test_few_bytes_do_not_become_many() -> None:
    """References, depth, shapes, and one text encoded again and again."""
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)
    again = (
        b"c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1\x86q\x020](" + b"h\x00h\x02R" * 3000 + b"e."
    )
    laughs = b"](K\x01e" + b"q\x00](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00e" * 60 + b"."
    deep = b"]" * 300_000 + b"a" * 299_999 + b"."
    tuples = b")" + b"\x85" * 300_000 + b"."
    key = b"}" + tuples[:-1] + b"K\x01s."
    tracemalloc.start()
    refused(again, "makes more than is in it")
    for data in (laughs, deep, tuples):
        damaged_or_data(data)
    refused(key, "has a dict with keys that are neither texts nor numbers")
    for length in (b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x8e" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\xff"):
        refused(length + b"abc.", "it ends too early")
    refused(b"\x8b\xff\xff\xff\x7f.", "a number that is too long")
    refused(b"\x8b\xff\xff\xff\xff.", "a number that is too long")
    refused(b"L" + b"9" * 5000 + b"\n.", "one of its lines is too long")
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    refused(b"N0" * 501 + b"N.", "has more than 1,000 parts")
    assert read_pickle(b"N0" * 499 + b"N.", PLACE) is None


def an_example() -> bytes:
    value = {"data": np.arange(12).reshape(3, 4), "labels": [1, 2, 300, 2**40], "names": ("a", b"b", 1.5, None, True)}
    return pickle.dumps(value, 2)


def test_a_file_that_was_cut_off_is_refused() -> None:
    data = an_example()
    for end in range(len(data)):
        refused(data[:end])


@pytest.mark.parametrize("seed", range(20))
def test_damage_ends_in_a_sentence(seed: int) -> None:
    rng, data = random.Random(seed), an_example()
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        damaged_or_data(bytes(damaged))


@given(st.binary(max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_bytes_end_in_a_sentence(data: bytes) -> None:
    damaged_or_data(data)
    damaged_or_data(b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00u1" + data)
    damaged_or_data(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(" + data)
