import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.images import decoded_cache, shared_files
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.release import Release, open_release
from tests.data.caches import counted_decodings

SIZE = 16
BYTES = 30 * SIZE * SIZE * 3  # of one list of thirty images


@pytest.fixture
def release(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_decodings(monkeypatch)


@pytest.fixture
def lists(release: Release) -> list[np.ndarray]:
    return np.split(release.split("noisy_train").keys, 4)


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "lock")


def use(cache: DecodedCache, release: Release, keys: np.ndarray, moment: int) -> np.ndarray:
    """Ask for a list, as if at second `moment`: a clock that ticks slower than the test runs would blur the order."""
    images = cache.images(release, keys, SIZE)
    for path in cache.folder.glob("*.pixels"):
        if path.stat().st_mtime > 1e6:
            os.utime(path, (moment, moment))
    return images


def test_of_what_no_run_uses_the_least_recently_used_makes_way(
    release: Release, lists: list[np.ndarray], decoded: list[int], tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path, 2 * BYTES)
    for moment, client in enumerate((0, 1, 0, 2), 1):
        assert np.array_equal(use(cache, release, lists[client], moment), load_images(release, lists[client], SIZE))
        assert held(tmp_path) <= 2 * BYTES
    assert decoded == [30, 30, 30]
    use(cache, release, lists[0], 5)
    use(DecodedCache(tmp_path, 2 * BYTES), release, lists[2], 6)  # a new process
    assert decoded == [30, 30, 30]
    use(cache, release, lists[1], 7)
    assert decoded == [30, 30, 30, 30]
    assert held(tmp_path) == 2 * BYTES


@pytest.mark.parametrize("max_bytes", [0, BYTES - 1])
def test_what_does_not_fit_is_not_kept(
    release: Release, lists: list[np.ndarray], tmp_path: Path, max_bytes: int
) -> None:
    cache = DecodedCache(tmp_path / "cache", max_bytes, run="one")
    expected = load_images(release, lists[0], SIZE)
    assert np.array_equal(cache.images(release, lists[0], SIZE), expected)
    assert np.array_equal(cache.arriving(release, lists[0], SIZE).whole(), expected)
    assert not (tmp_path / "cache").exists()


def test_a_nearly_full_disk_is_left_alone(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files, "MIN_FREE_BYTES", 1 << 60)
    images = DecodedCache(tmp_path, 10 * BYTES).images(release, lists[0], SIZE)
    assert np.array_equal(images, load_images(release, lists[0], SIZE))
    assert held(tmp_path) == 0


def test_a_folder_that_cannot_be_written_is_not_a_failure(
    release: Release, lists: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    warnings: list[str] = []
    cache = DecodedCache(tmp_path / "file" / "cache", 10 * BYTES, warnings.append)
    for keys in lists[:2]:
        assert np.array_equal(cache.images(release, keys, SIZE), load_images(release, keys, SIZE))
    reason = "cannot be written (Not a directory); images are decoded anew in each visit."
    assert warnings == [f"{tmp_path / 'file' / 'cache'} {reason}"]


@pytest.mark.parametrize("where", ["memmap", "replace"])
def test_trouble_while_a_file_is_filled_is_not_a_failure(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np if where == "memmap" else Path, where, fails)
    warnings: list[str] = []
    images = DecodedCache(tmp_path, 10 * BYTES, warnings.append).images(release, lists[0], SIZE)
    assert np.array_equal(images, load_images(release, lists[0], SIZE))
    assert warnings == [f"{tmp_path} cannot be written (Too many open files); images are decoded anew in each visit."]
    assert held(tmp_path) == 0


def test_space_is_allocated_before_anything_is_written(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    images = DecodedCache(tmp_path, 10 * BYTES).images(release, lists[0], SIZE)
    assert np.array_equal(images, load_images(release, lists[0], SIZE))
    assert held(tmp_path) == 0


def test_another_order_size_or_file_is_another_entry(tiny_sample: Path, decoded: list[int], tmp_path: Path) -> None:

    root = tmp_path / "copy"
    shutil.copytree(tiny_sample, root)
    release = open_release(root)
    keys = release.split("clean_val").keys
    cache = DecodedCache(tmp_path / "cache", 100 * BYTES)
    first = cache.images(release, keys, SIZE)
    assert np.array_equal(cache.images(release, keys[::-1], SIZE), first[::-1])
    assert cache.images(release, keys, 2 * SIZE).shape == (12, 32, 32, 3)
    path = Path(release.store.place(keys[3]))
    path.write_bytes(Path(release.store.place(keys[4])).read_bytes())
    changed = DecodedCache(tmp_path / "cache", 100 * BYTES).images(release, keys, SIZE)
    assert np.array_equal(changed[3], first[4])
    assert decoded == [12, 12, 12, 12]


def test_a_damaged_image_leaves_nothing_behind(tiny_sample: Path, tmp_path: Path) -> None:

    root = tmp_path / "copy"
    shutil.copytree(tiny_sample, root)
    release = open_release(root)
    keys = release.split("clean_val").keys
    Path(release.store.place(keys[5])).write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        DecodedCache(tmp_path / "cache", 100 * BYTES).images(release, keys, SIZE)
    assert held(tmp_path / "cache") == 0


def test_what_a_killed_process_left_is_cleared_and_what_a_running_one_fills_is_not(
    release: Release, lists: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "1-dead.filling").write_bytes(bytes(BYTES))
    alive = tmp_path / "2-alive.filling"
    alive.write_bytes(bytes(BYTES))
    with alive.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        DecodedCache(tmp_path, 2 * BYTES).images(release, lists[0], SIZE)
        assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".filling", ".pixels"]
        DecodedCache(tmp_path, 2 * BYTES).images(release, lists[1], SIZE)
        assert alive.exists()
        assert held(tmp_path) == 2 * BYTES


def test_while_the_cache_has_space_a_process_scans_the_folder_once(
    release: Release, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    iterdir = Path.iterdir

    def counting(path: Path) -> Iterator[Path]:
        looks.append(path)
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", counting)
    cache = DecodedCache(tmp_path, 3 * BYTES)
    for keys in lists[:3]:
        cache.images(release, keys, SIZE)
    assert len(looks) == 1
    cache.images(release, lists[3], SIZE)
    assert len(looks) == 2


@pytest.mark.parametrize("damage", [None, b"", b"what?"])
def test_processes_that_share_a_folder_know_of_each_others_files(
    release: Release, lists: list[np.ndarray], tmp_path: Path, damage: bytes | None
) -> None:
    one, other = (DecodedCache(tmp_path, 2 * BYTES) for _ in range(2))
    for cache, keys in ((one, lists[0]), (other, lists[1]), (one, lists[2]), (other, lists[3])):
        cache.images(release, keys, SIZE)
        if damage is not None:
            (tmp_path / "lock").write_bytes(damage)
        assert BYTES <= held(tmp_path) <= 2 * BYTES


def test_files_that_somebody_deleted_do_not_count_for_long(
    release: Release, lists: list[np.ndarray], decoded: list[int], tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path, 2 * BYTES)
    for keys in lists[:2]:
        cache.images(release, keys, SIZE)
    for path in tmp_path.glob("*.pixels"):
        path.unlink()
    for keys in (*lists[2:], *lists[2:]):
        cache.images(release, keys, SIZE)
    assert decoded == [30, 30, 30, 30]


def test_a_short_file_is_decoded_again(
    release: Release, lists: list[np.ndarray], decoded: list[int], tmp_path: Path
) -> None:
    expected = np.array(DecodedCache(tmp_path, 2 * BYTES).images(release, lists[0], SIZE))
    [path] = tmp_path.glob("*.pixels")
    path.write_bytes(bytes(17))
    assert np.array_equal(DecodedCache(tmp_path, 2 * BYTES).images(release, lists[0], SIZE), expected)
    assert decoded == [30, 30]


def test_writing_to_the_images_does_not_change_the_cache(
    release: Release, lists: list[np.ndarray], tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path, 2 * BYTES)
    cache.images(release, lists[0], SIZE)
    images = cache.images(release, lists[0], SIZE)
    images[:] = 0
    assert cache.images(release, lists[0], SIZE).any()


@pytest.mark.parametrize("boot", ["another boot", ""])
def test_files_are_trusted_until_the_next_boot(
    release: Release,
    lists: list[np.ndarray],
    decoded: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    boot: str,
) -> None:
    first = DecodedCache(tmp_path, 2 * BYTES).images(release, lists[0], SIZE)
    monkeypatch.setattr(decoded_cache, "BOOT", boot)
    for _ in range(2):
        assert np.array_equal(DecodedCache(tmp_path, 2 * BYTES).images(release, lists[0], SIZE), first)
    assert decoded == [30, 30]
