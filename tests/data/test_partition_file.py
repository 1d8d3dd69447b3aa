import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from data.errors import DataError
from data.partition.file import deal, load_partition, save_partition
from data.partition.schemes import partition
from data.release import Split, open_release


@pytest.fixture
def split(tiny_sample: Path) -> Split:
    return open_release(tiny_sample).split("noisy_train")


@pytest.fixture
def saved(split: Split, tmp_path: Path) -> Path:
    parts = partition("dirichlet", split.labels, 6, 3, alpha=0.3)
    save_partition(tmp_path / "parts.safetensors", split.keys, parts, {"scheme": "dirichlet"})
    return tmp_path / "parts.safetensors"


def test_what_was_saved_is_dealt_again(split: Split, saved: Path) -> None:
    expected = partition("dirichlet", split.labels, 6, 3, alpha=0.3)
    for parts in (load_partition(saved, split.keys, 6), deal(split, "file", 6, 99, path=str(saved))):
        assert len(parts) == 6
        assert all(np.array_equal(one, other) for one, other in zip(parts, expected, strict=True))
    assert all(
        np.array_equal(one, other)
        for one, other in zip(deal(split, "dirichlet", 6, 3, alpha=0.3), expected, strict=True)
    )


def test_the_hash_of_the_keys_is_that_of_the_released_file(saved: Path, tiny_sample: Path) -> None:
    assert saved.stat().st_mode & 0o444 == 0o444  # the library's own files are private
    with safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
        assert metadata["keys"] == hashlib.sha256((tiny_sample / "noisy_train_key_list.txt").read_bytes()).hexdigest()
        assert metadata["scheme"] == "dirichlet"
        assert file.get_tensor("sizes").sum() == 120


def test_the_hash_is_the_same_on_any_machine(split: Split, tmp_path: Path) -> None:
    keys = np.array([b"images/0/01/1,1001.jpg", b"images/0/02/1,1002.jpg", b"images/0/03/1,1003.jpg"])
    parts = [np.array([2]), np.array([0, 1])]
    known = "".join([
        hashlib.sha256(b"\n".join(keys.tolist())).hexdigest(),
    ])  # fmt: skip
    expected = hashlib.sha256(known.encode() + np.array([1, 2, 2, 0, 1], "<i8").tobytes()).hexdigest()
    assert save_partition(tmp_path / "small", keys, parts, {}) == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:-1], "is short: it has"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is damaged: its hash does not match"),
        (lambda data: b"", "is empty"),
        (lambda data: b"a partition, honestly", "is not a safetensors file"),
        (lambda data: data.replace(b"clothing1m-fl partition 1", b"clothing1m-fl partition 2"), "is not a partition"),
    ],
)
def test_a_damaged_file_is_refused(split: Split, saved: Path, change: object, sentence: str) -> None:
    saved.write_bytes(change(saved.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=sentence) as caught:
        load_partition(saved, split.keys, 6)
    assert str(caught.value).startswith(str(saved))
    assert str(caught.value).endswith("it must be a file of `python -m data partition --out FILE` for this list.")


def test_another_list_or_number_of_clients_is_refused(split: Split, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was made for another list of images"):
        load_partition(saved, split.keys[::-1], 6)
    with pytest.raises(DataError, match="has 6 clients, not 7"):
        load_partition(saved, split.keys, 7)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_partition(tmp_path / "absent", split.keys, 6)


@pytest.mark.parametrize("args", [{}, {"path": 3}, {"path": "x", "alpha": 1}])
def test_bad_arguments_of_the_scheme_file_are_refused(split: Split, args: dict[str, object]) -> None:
    with pytest.raises(DataError, match="'file' needs the argument 'path'"):
        deal(split, "file", 6, 1, **args)


def test_the_refusal_of_unknown_schemes_lists_file(split: Split) -> None:
    with pytest.raises(DataError, match=r"no partition scheme 'files'; it must be one of iid, .*, file\."):
        deal(split, "files", 6, 1)


def test_a_path_that_cannot_be_written_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        save_partition(tmp_path / "absent" / "parts", split.keys, [np.arange(120)], {})


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_any_sizes_come_back(sizes: list[int]) -> None:
    keys = np.array([f"images/{number}".encode() for number in range(sum(sizes))])
    parts = np.split(np.random.default_rng(0).permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    with TemporaryDirectory() as folder:
        save_partition(Path(folder) / "parts", keys, parts, {})
        loaded = load_partition(Path(folder) / "parts", keys, len(sizes))
    assert [part.tolist() for part in loaded] == [part.tolist() for part in parts]


def _sealed(path: Path, keys: np.ndarray, rows: Any, sizes: Any) -> Path:
    """A file with fitting hashes, whatever is in it."""
    arrays = {"rows": np.asarray(rows), "sizes": np.asarray(sizes)}
    of_keys = hashlib.sha256(b"\n".join(keys.tolist())).hexdigest()
    seen = hashlib.sha256(of_keys.encode())
    for name in ("sizes", "rows"):
        seen.update(arrays[name].astype("<i8").tobytes())
    metadata = {"format": "clothing1m-fl partition 1", "keys": of_keys, "sha256": seen.hexdigest()}
    path.write_bytes(save(arrays, metadata))
    return path


FOUR = np.array([f"images/0/01/1,{number}.jpg".encode() for number in range(4)])


@pytest.mark.parametrize(
    ("rows", "sizes", "sentence"),
    [
        (
            [0, 1, 2, 3, 0, 1, 2, 3],
            [4, 4],
            "gives 4 images to more than one place, the first, row 0, to clients 0 and 1",
        ),
        ([0, 1, 1, 3], [3, 1], "gives 1 images to more than one place, the first, row 1, to client 0 twice"),
        ([0, 1, 2], [2, 1], "gives 1 of 4 images to no client, the first in row 3"),
        ([0, 1, 2, -1], [2, 2], "has row -1 for client 1, but the list has rows 0 to 3"),
        ([4, 1, 2, 3], [2, 2], "has row 4 for client 0, but the list has rows 0 to 3"),
        ([0, 1, 2, 3], [5, -1], "gives client 1 -1 images, of which each client must have at least 1"),
        ([0, 1, 2, 3], [4, 0], "gives client 1 0 images, of which each client must have at least 1"),
        ([0, 1, 2, 3], [2, 1], "has 4 rows for clients that hold 3 images"),
        ([0, 1, 2, 3], [2**62, 2**62, 2**62, 2**62, 4], "has 4 rows for clients that hold 18,446,744,073,709,551,620"),
        ([[0, 1], [2, 3]], [2, 2], r"has 'rows' of shape \(2, 2\) and type int64"),
        (np.arange(4, dtype=np.int32), [2, 2], r"has 'rows' of shape \(4,\) and type int32"),
        ([0, 1, 2, 3], [4], "has 1 clients, not 2"),
    ],
)
def test_a_partition_must_be_complete_and_disjoint(tmp_path: Path, rows: Any, sizes: Any, sentence: str) -> None:
    path = _sealed(tmp_path / "parts", FOUR, rows, sizes)
    with pytest.raises(DataError, match=sentence) as refused:
        load_partition(path, FOUR, 2)
    assert str(refused.value).startswith(f"{path} ")
    assert "\n" not in str(refused.value)


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="to clients 0 and 1; it must be complete and disjoint"):
        save_partition(tmp_path / "parts", FOUR, [np.arange(4), np.arange(4)], {})
    assert not (tmp_path / "parts").exists()


@given(st.lists(st.integers(-2, 5), max_size=8), st.lists(st.integers(-1, 5), max_size=4))
def test_every_partition_that_is_read_is_one(rows: list[int], sizes: list[int]) -> None:
    with TemporaryDirectory() as folder:
        path = _sealed(Path(folder) / "parts", FOUR, np.array(rows, np.int64), np.array(sizes, np.int64))
        whole = sorted(rows) == [0, 1, 2, 3] and sum(sizes) == 4 and min(sizes) > 0
        try:
            parts = load_partition(path, FOUR, len(sizes))
        except DataError:
            assert not whole
        else:
            assert whole
            assert [row for part in parts for row in part.tolist()] == rows
            assert [len(part) for part in parts] == sizes


def test_a_pipe_is_no_partition(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is not a file; it must be a file of"):
        load_partition(tmp_path / "pipe", FOUR, 2)
