"""Features in the folder of decoded images: computed once, under the same bound, and never trusted when damaged."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.images.decoded_cache import SEAL, DecodedCache
from data.release import Release, open_release
from tests.data.caches import SIZE

WIDTH = 20
BYTES = 30 * WIDTH * 4 + SEAL  # of one list of thirty images


@pytest.fixture
def release(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@pytest.fixture
def lists(release: Release) -> list[np.ndarray]:
    return np.split(release.split("noisy_train").keys, 4)


class Computing:
    """Means of random rows of pixels, and how often they were asked for."""

    def __init__(self, release: Release) -> None:
        self.release, self.count = release, 0

    def of(self, cache: DecodedCache, keys: np.ndarray, about: str = "a body") -> np.ndarray:
        def compute() -> np.ndarray:
            self.count += 1
            images = cache.images(self.release, keys, SIZE)
            return images.reshape(len(keys), -1)[:, :WIDTH].astype(np.float32) / 3

        return cache.features(self.release, keys, SIZE, about, WIDTH, compute)


@pytest.fixture
def computing(release: Release) -> Computing:
    return Computing(release)


def test_once_for_all_processes(computing: Computing, lists: list[np.ndarray], tmp_path: Path) -> None:
    first = computing.of(DecodedCache(tmp_path, 1 << 20), lists[0])
    assert first.dtype == np.float32
    assert first.shape == (30, WIDTH)
    cache = DecodedCache(tmp_path, 1 << 20)
    assert cache.kept_features(computing.release, lists[0], SIZE, "a body", WIDTH) is not None
    assert cache.kept_features(computing.release, lists[1], SIZE, "a body", WIDTH) is None
    assert cache.kept_features(computing.release, lists[0], SIZE, "another", WIDTH) is None
    assert np.array_equal(computing.of(cache, lists[0]), first)
    assert computing.count == 1
    kept = computing.of(cache, lists[0])
    kept[:] = 0  # a private copy
    assert np.array_equal(computing.of(cache, lists[0]), first)
    for keys, about in ((lists[1], "a body"), (lists[0], "another"), (lists[0][::-1], "a body")):
        computing.of(cache, keys, about)
    assert computing.count == 4
    assert len(list(tmp_path.glob("*.features"))) == 4


def test_another_file_of_an_image_is_another_feature(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path
) -> None:
    computing.of(DecodedCache(tmp_path, 1 << 20), lists[0])
    path = Path(computing.release.store.place(lists[0][3]))
    before = path.stat()
    try:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        computing.of(DecodedCache(tmp_path, 1 << 20), lists[0])
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert computing.count == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: content + b"x",
        lambda content: bytes(len(content)),
        lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ],
)
def test_a_damaged_file_is_computed_again(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    cache = DecodedCache(tmp_path, 1 << 20)
    first = np.array(computing.of(cache, lists[0]))
    [path] = tmp_path.glob("*.features")
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        assert np.array_equal(computing.of(cache, lists[0]), first)
    assert computing.count == 2
    assert np.array_equal(computing.of(DecodedCache(tmp_path, 1 << 20), lists[0]), first)
    assert computing.count == 2


@pytest.mark.parametrize("max_bytes", [0, BYTES - 1])
def test_what_does_not_fit_is_computed_each_time(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path, max_bytes: int
) -> None:
    cache = DecodedCache(tmp_path / "cache", max_bytes)
    one, other = (computing.of(cache, lists[0]) for _ in range(2))
    assert np.array_equal(one, other)
    assert computing.count == 2
    assert not list((tmp_path / "cache").glob("*"))


def test_they_count_towards_the_bound_and_make_way_like_pixels(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path
) -> None:
    pixels = 30 * SIZE * SIZE * 3
    bound = pixels + 2 * BYTES
    old = DecodedCache(tmp_path, bound, run="old")
    for keys in lists[:3]:
        computing.of(old, keys)
        held = [path.stat().st_size for path in tmp_path.iterdir() if path.suffix in (".pixels", ".features")]
        assert sum(held) <= bound
    assert sorted(held) == [BYTES, BYTES, pixels]  # what the run uses stays, and the third list found no space
    for number, path in enumerate(sorted(tmp_path.glob("*.*"))):
        os.utime(path, (number + 1, number + 1))
    new = DecodedCache(tmp_path, bound, run="new")
    computing.of(new, lists[3])
    assert new.kept_features(computing.release, lists[3], SIZE, "a body", WIDTH) is not None
    held = [path.stat().st_size for path in tmp_path.iterdir() if path.suffix in (".pixels", ".features")]
    assert sum(held) <= bound


def test_a_folder_that_cannot_be_written_is_said_once(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path
) -> None:
    said: list[str] = []
    (tmp_path / "file").write_bytes(b"")
    cache = DecodedCache(tmp_path / "file", 1 << 20, said.append)
    assert np.array_equal(computing.of(cache, lists[0]), computing.of(cache, lists[0]))
    assert computing.count == 2
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_only_features_cannot_be_written(
    computing: Computing, lists: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = DecodedCache(tmp_path, 1 << 20, said.append)
    cache.images(computing.release, lists[0], SIZE)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    computing.of(cache, lists[0])
    computing.of(cache, lists[0])
    assert said == [
        f"{tmp_path} cannot be written (No space left on device); features are computed anew in each visit."
    ]
    assert not list(tmp_path.glob("*.fill*"))


def test_clearing_takes_them(computing: Computing, lists: list[np.ndarray], tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 1 << 20)
    computing.of(cache, lists[0])
    cache._files.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
