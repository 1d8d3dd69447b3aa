"""The bytes in use never exceed the bound, whatever maps, fills and dies."""

import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.images import decoded_cache, shared_files
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.images.shared_files import SharedFiles
from data.release import Release, open_release
from tests.data.caches import BOUND, BYTES, CLIENTS, SIZE, counted_bytes, grow_old, in_use

HOLDER = """
import sys
from pathlib import Path
from data.images.shared_files import SharedFiles

pixels = SharedFiles(Path(sys.argv[1]), 1 << 20).mapped(sys.argv[2], (int(sys.argv[3]),))
print(pixels.sum(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def release(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@pytest.fixture
def lists(release: Release) -> list[np.ndarray]:
    return np.split(release.split("noisy_train").keys, CLIENTS)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_bytes(monkeypatch)


def test_what_is_mapped_counts_until_it_is_released(
    release: Release, lists: list[np.ndarray], written: list[int], tmp_path: Path
) -> None:
    old = DecodedCache(tmp_path, BOUND, run="old")
    kept = [old.images(release, keys, SIZE) for keys in lists[:3]]

    def another(run: str) -> None:
        grow_old(tmp_path)
        cache = DecodedCache(tmp_path, BOUND, run=run)
        for keys in lists[3:6]:
            cache.images(release, keys, SIZE)
            assert in_use(tmp_path) == BOUND

    another("new")
    assert written == [BYTES] * 3
    assert np.array_equal(kept[0], load_images(release, lists[0], SIZE))
    del kept
    gc.collect()
    another("newest")
    assert written == [BYTES] * 6


def test_a_process_that_is_killed_lets_go_of_what_it_mapped(tmp_path: Path) -> None:
    bound = 1 << 20
    SharedFiles(tmp_path, bound).filled("a.pixels", (bound,), lambda pixels: pixels.fill(1))
    argv = [sys.executable, "-c", HOLDER, str(tmp_path), "a.pixels", str(bound)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == f"{bound}\n"
        grow_old(tmp_path)
        assert SharedFiles(tmp_path, bound).filled("b.pixels", (bound,), lambda pixels: None) is None
        assert in_use(tmp_path) == bound
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    grow_old(tmp_path)
    assert SharedFiles(tmp_path, bound).filled("b.pixels", (bound,), lambda pixels: pixels.fill(2)) is not None
    assert [path.name for path in tmp_path.glob("*.pixels")] == ["b.pixels"]


def test_a_smaller_bound_holds_from_the_first_use_on(release: Release, lists: list[np.ndarray], tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, BOUND, run="one")
    for keys in lists:
        cache.images(release, keys, SIZE)
    DecodedCache(tmp_path, BYTES, run="two").images(release, lists[2], SIZE)
    assert in_use(tmp_path) == BYTES


def test_a_list_is_written_by_one_process_at_a_time(tmp_path: Path, written: list[int]) -> None:
    one, other = (SharedFiles(tmp_path, 1 << 20) for _ in range(2))

    def fill(pixels: np.ndarray) -> None:
        assert other.filled("a.pixels", (100,), fill) is None
        pixels.fill(7)

    first = one.filled("a.pixels", (100,), fill)
    second = other.filled("a.pixels", (100,), fill)
    assert first is not None
    assert second is not None
    assert first.tolist() == second.tolist() == [7] * 100
    assert written == [100]


def test_a_list_that_cannot_be_decoded_gives_its_space_back(
    release: Release, lists: list[np.ndarray], written: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise DataError("no")

    cache = DecodedCache(tmp_path, BOUND, run="one")
    with monkeypatch.context() as patch:
        patch.setattr(decoded_cache, "load_images", fails)
        for keys in lists[:3]:
            with pytest.raises(DataError, match="no"):
                cache.images(release, keys, SIZE)
    gc.collect()
    assert in_use(tmp_path) == 0
    for keys in lists:
        cache.images(release, keys, SIZE)
    assert in_use(tmp_path) == BOUND


def test_a_full_folder_is_scanned_now_and_then(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    iterdir = Path.iterdir

    def counting(path: Path) -> Iterator[Path]:
        looks.append(path)
        return iterdir(path)

    cache = DecodedCache(tmp_path, BOUND, run="one")
    for keys in lists[:3]:
        cache.images(release, keys, SIZE)
    monkeypatch.setattr(Path, "iterdir", counting)
    for _ in range(3):
        for keys in lists:
            cache.images(release, keys, SIZE)
    assert len(looks) == 1
    monkeypatch.setattr(shared_files, "SCAN_AGAIN", 0.0)
    for path in tmp_path.glob("*.pixels"):
        path.unlink()
    cache = DecodedCache(tmp_path, BOUND, run="one")
    for keys in lists:
        cache.images(release, keys, SIZE)
    assert in_use(tmp_path) == BOUND


def test_a_turnover_of_many_small_files_takes_few_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each of the new run's files."""
    looks: list[Path] = []
    iterdir = Path.iterdir
    old = SharedFiles(tmp_path, 300 * 10, run="old")
    for number in range(300):
        old.filled(f"{number}.pixels", (10,), lambda pixels: None)
    grow_old(tmp_path)
    monkeypatch.setattr(Path, "iterdir", lambda path: looks.append(path) or iterdir(path))  # type: ignore[func-returns-value]
    new = SharedFiles(tmp_path, 300 * 10, run="new")
    for number in range(300, 600):
        assert new.filled(f"{number}.pixels", (10,), lambda pixels: None) is not None
    assert in_use(tmp_path) == 300 * 10
    assert len(looks) <= 10


@pytest.mark.parametrize("left", ["a.filling", "b.filling"])
def test_what_a_killed_process_began_is_begun_again(tmp_path: Path, written: list[int], left: str) -> None:
    (tmp_path / left).write_bytes(bytes(100))
    pixels = SharedFiles(tmp_path, 100).filled("a.pixels", (100,), lambda pixels: pixels.fill(7))
    assert pixels is not None
    assert pixels.tolist() == [7] * 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pixels", "lock"]


def test_a_file_that_another_process_fills_does_not_keep_what_may_go(
    release: Release, lists: list[np.ndarray], tmp_path: Path
) -> None:
    """However old it is: files are looked at from the oldest on."""
    cache = DecodedCache(tmp_path, BOUND, run="old")
    for keys in lists[:2]:
        cache.images(release, keys, SIZE)
    del cache
    grow_old(tmp_path)
    filling = tmp_path / "other.filling"
    filling.write_bytes(bytes(BYTES))
    os.utime(filling, (0, 0))
    with filling.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        DecodedCache(tmp_path, BOUND, run="new").images(release, lists[5], SIZE)
        assert filling.exists()
    assert in_use(tmp_path) <= BOUND
    assert len([path for path in tmp_path.glob("*.pixels") if path.stat().st_mtime > 3]) == 1


def test_a_file_that_cannot_be_deleted_is_counted_and_does_no_harm(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's, in a folder where everybody deletes only his own."""
    left = tmp_path / "theirs.filling"
    left.write_bytes(bytes(BYTES))
    (tmp_path / "loop.pixels").symlink_to(tmp_path / "loop.pixels")
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    said: list[str] = []
    cache = DecodedCache(tmp_path, BOUND, said.append)
    kept = [cache.images(release, keys, SIZE) for keys in lists[:4]]
    assert not said
    assert len(kept) == 4
    assert len([path for path in tmp_path.glob("*.pixels") if path.is_file()]) == 2
