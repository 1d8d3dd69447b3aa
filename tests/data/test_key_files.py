"""The byte-level reader: whatever is written comes back, and no bytes make it crash."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.layout import key_files
from data.layout.key_files import first_difference, read_text
from data.release import open_release

Write = Callable[..., Path]
PIECES = [b"images/", b"1", b" ", b"\n", b"\r", b"0", b"a", b"\x00", b"-", b"/..", b"\xff"]
KEY = st.builds(
    lambda folder, id1, id2: f"images/{folder}/{id1},{id2}.jpg",
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), table=st.dictionaries(KEY, st.integers(0, 14), min_size=1, max_size=40))
def test_any_keys_and_labels_come_back(data: st.DataObject, table: dict[str, int]) -> None:
    names = list(table)
    listed = data.draw(st.permutations(names).map(lambda keys: keys[: max(1, len(keys) // 2)]))
    shuffled = data.draw(st.permutations(names))
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    end = data.draw(st.sampled_from(["", newline]))
    with TemporaryDirectory() as folder:
        lines, path = newline.join(listed) + end, Path(folder) / "list.txt"
        path.write_bytes(lines.encode())
        assert [key.decode() for key in key_files.read_keys(path)] == listed
        path = Path(folder) / "kv.txt"
        path.write_bytes((newline.join(f"{key} {table[key]}" for key in shuffled) + end).encode())
        keys, labels = key_files.read_labels(path, 15)
    assert {key.decode(): int(label) for key, label in zip(keys, labels, strict=True)} == table
    assert [key.decode() for key in keys] == shuffled


@settings(max_examples=300, deadline=None)
@given(
    garbage=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from(PIECES)).map(b"".join),
    )
)
def test_garbage_is_refused_or_read_but_never_crashes(garbage: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.txt"
        path.write_bytes(garbage)
        for read in (key_files.read_keys, lambda path: key_files.read_labels(path, 3)[0]):
            try:
                keys = read(path)
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017 (not every input is refused)
            else:
                assert all(key.startswith(b"images/") for key in keys)
                text = garbage.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").removesuffix(b"\n")
                assert len(keys) == (text.count(b"\n") + 1 if text else 0)


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_files_are_read_in_blocks(write_release: Write, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole = open_release(write_release()).split("noisy_train")
    monkeypatch.setattr(key_files, "BLOCK", block)
    read = open_release(write_release()).split("noisy_train")
    assert read.keys.tolist() == whole.keys.tolist()
    assert read.labels.tolist() == whole.labels.tolist()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe is no regular file; it must be a readable text file\."):
        read_text(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("names", "others", "told"),
    [
        (("a", "b", "c"), ("a", "b", "d"), (3, "'c'", "'d'")),
        (("a", "b"), ("a",), (2, "'b'", "")),
        (("a",), ("a", "b"), (2, "", "'b'")),
        (("a",), ("a",), (0, "", "")),
        (("Caf\u00e9",), ("Cafe\u0301",), (1, r"'Caf\xe9'", r"'Cafe\u0301'")),  # composed and not
        (("\u0421oat",), ("Coat",), (1, r"'\u0421oat'", "'Coat'")),  # a Cyrillic letter
        (("\u5927\u8863",), ("\u8863",), (1, "'\u5927\u8863'", "'\u8863'")),  # as they are
    ],
)
def test_the_first_difference_of_two_lists_of_classes(
    names: tuple[str, ...], others: tuple[str, ...], told: tuple[int, str, str]
) -> None:
    assert first_difference(names, others) == told
