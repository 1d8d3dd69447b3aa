"""A pack of pixels is mapped, and each image's checksum is verified once, whatever number of processes use it."""

import os
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import BadImageError
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.pack_writer import Packing, write_pack
from data.release import Release, open_release
from data.stores import pack as pack_module

SIZE = 32


@pytest.fixture(scope="module")
def master(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "pixels.pack"
    write_pack(open_release(tiny_sample), out, Packing(SIZE, decoded=True))
    return out


@pytest.fixture
def path(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(master, tmp_path / "pixels.pack"))


@pytest.fixture
def release(path: Path) -> Release:
    return open_release(path)


@pytest.fixture
def keys(release: Release) -> np.ndarray:
    """A client's images, here and there in the pack."""
    return release.split("noisy_train").keys[[5, 90, 3, 41, 42, 43, 7]]


@pytest.fixture
def checksums(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each image that was verified."""
    sizes: list[int] = []

    class Counting:
        @staticmethod
        def crc32(data: memoryview) -> int:
            sizes.append(data.nbytes)
            return zlib.crc32(data)

    monkeypatch.setattr(pack_module, "zlib", Counting)
    return sizes


def damage(path: Path, release: Release, key: bytes) -> int:
    """Change one byte of an image; returns its row."""
    row = int(release.store.rows(np.array([key]))[0])  # type: ignore[attr-defined]
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    with path.open("r+b") as file:
        file.seek(begin + row * SIZE * SIZE * 3 + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    return row


def test_pixels_are_those_that_were_packed(
    release: Release, keys: np.ndarray, tiny_sample: Path, tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path / "cache", 0)
    expected = load_images(open_release(tiny_sample), keys, SIZE)
    assert np.array_equal(cache.pixels(release, keys, SIZE).whole(), expected)
    assert np.array_equal(cache.images(release, keys, SIZE), expected)
    assert len(cache.pixels(release, keys[:0], SIZE)) == 0


def test_checksums_are_computed_once_on_a_machine_and_nothing_is_copied(
    release: Release, path: Path, checksums: list[int], tmp_path: Path
) -> None:
    keys = release.split("noisy_train").keys
    some = keys[::3]
    DecodedCache(tmp_path / "cache", 0).pixels(release, some, SIZE)
    assert checksums == [SIZE * SIZE * 3] * len(some)
    checksums.clear()
    another = open_release(path)  # as another process would
    cache = DecodedCache(tmp_path / "cache", 0)
    cache.pixels(another, some[:1], SIZE)  # imports
    tracemalloc.start()
    try:
        pixels = cache.pixels(another, some[::-1], SIZE)
        batch = pixels.take(np.arange(2))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert checksums == []
    assert most < 0.5 * len(some) * SIZE * SIZE * 3
    assert np.array_equal(batch, load_images(release, some[::-1][:2], SIZE))
    checksums.clear()
    cache.pixels(another, keys, SIZE)
    assert len(checksums) == len(keys) - len(some)


@pytest.mark.parametrize("earlier", ["never", "before the damage", "after the damage"])
def test_a_damaged_image_is_refused(
    path: Path, release: Release, keys: np.ndarray, tmp_path: Path, earlier: str
) -> None:
    def use(release: Release, keys: np.ndarray) -> None:
        DecodedCache(tmp_path / "cache", 0).pixels(release, keys, SIZE)

    if earlier == "before the damage":
        use(release, keys)
    damage(path, release, keys[4])
    damage(path, release, keys[2])
    changed = open_release(path)
    if earlier == "after the damage":
        use(changed, keys[[0, 1, 3]])
    first = keys[2].decode()
    for _ in range(2):
        with pytest.raises(BadImageError, match=f"{path} is damaged: image {first} has changed since it was packed; "):
            use(changed, keys)
    use(changed, keys[[0, 1, 3, 5, 6]])
    bad = DecodedCache(tmp_path / "cache", 0).bad_images(changed, keys, SIZE)
    assert list(bad) == [2, 4]
    assert first in bad[2]
    shutil.copy(path, path.with_suffix(".mended"))
    whole = open_release(path.with_suffix(".mended"))
    with pytest.raises(BadImageError, match="mended is damaged"):
        use(whole, keys)


@pytest.mark.parametrize("note", [b"", b"\1", b"\2" * 1000, bytes(1000), b"\xff" * 7])
def test_a_note_that_makes_no_sense_is_no_proof(
    release: Release, keys: np.ndarray, checksums: list[int], tmp_path: Path, note: bytes
) -> None:
    DecodedCache(tmp_path / "cache", 0).pixels(release, keys, SIZE)
    [path] = (tmp_path / "cache").glob("*.checked")
    path.write_bytes(note)
    checksums.clear()
    for expected in (len(keys), 0):
        DecodedCache(tmp_path / "cache", 0).pixels(release, keys, SIZE)
        assert len(checksums) == expected
        checksums.clear()


def test_without_a_folder_each_process_checks_once(
    release: Release, keys: np.ndarray, checksums: list[int], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    warnings: list[str] = []
    cache = DecodedCache(tmp_path / "file" / "cache", 0, warnings.append)
    for _ in range(3):
        cache.pixels(release, keys, SIZE)
    assert len(checksums) == len(keys)
    reason = "cannot be written (Not a directory); images are checked anew by each process."
    assert warnings == [f"{tmp_path / 'file' / 'cache'} {reason}"]


def test_a_pack_that_takes_the_place_of_another_is_checked(
    path: Path, master: Path, release: Release, keys: np.ndarray, checksums: list[int], tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path / "cache", 0)
    cache.pixels(release, keys, SIZE)
    shutil.copy(master, tmp_path / "new")
    os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "new").replace(path)
    checksums.clear()
    cache.pixels(open_release(path), keys, SIZE)
    assert len(checksums) == len(keys)


@pytest.mark.parametrize("wrong", [lambda key: key + b"x", lambda key: key[:-1], lambda key: b"images/9/99/none.jpg"])
def test_a_key_that_is_not_there_is_refused(
    release: Release, keys: np.ndarray, tmp_path: Path, wrong: Callable[[bytes], bytes]
) -> None:
    asked = np.array([*keys.tolist(), wrong(keys[0])])
    with pytest.raises(Exception, match=r"image .* is not in .*pixels\.pack\."):
        DecodedCache(tmp_path, 0).pixels(release, asked, SIZE)
