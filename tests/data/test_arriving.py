"""Images that are used while others are still being decoded."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import BadImageError
from data.images import loading
from data.images.arriving import Arriving, Queue
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.images.pixels import StoredPixels
from data.release import Release, open_release

SIZE = 16


@pytest.fixture
def release(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@given(st.integers(0, 40), st.integers(1, 7), st.data())
def test_each_row_is_taken_once_and_those_that_are_expected_first(count: int, most: int, data: st.DataObject) -> None:
    queue = Queue(count)
    before = list(queue.take(most))
    expected = data.draw(st.permutations(range(count)))[: count // 2]
    queue.put_first(np.array(expected, dtype=np.int64))
    after: list[int] = []
    while len(rows := queue.take(most)):
        assert len(rows) <= most
        after += rows.tolist()
    assert sorted(before + after) == list(range(count))
    wanted = [row for row in expected if row not in before]
    assert after[: len(wanted)] == wanted


def test_a_batch_is_there_before_the_last_image_is(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    wanted, resume = np.array([100, 3, 77]), threading.Event()
    decoded: list[bytes] = []
    real = loading._decoded

    def slow(store: Any, key: bytes, data: bytes) -> np.ndarray:
        if key not in keys[wanted]:
            assert resume.wait(60)
        decoded.append(key)
        return real(store, key, data)

    monkeypatch.setattr(loading, "_decoded", slow)
    monkeypatch.setattr(loading, "BLOCK", 1)
    cache = DecodedCache(tmp_path, 1 << 30)
    pixels = cache.arriving(release, keys, SIZE, threads=200)  # so that none has to wait for its turn
    pixels.expect(wanted)
    assert isinstance(pixels, Arriving)
    batch = pixels.take(wanted)
    assert set(decoded) == set(keys[wanted])
    resume.set()
    expected = load_images(release, keys, SIZE)
    assert np.array_equal(batch, expected[wanted])
    assert np.array_equal(pixels.whole(), expected)
    assert np.array_equal(pixels.part(5, 9), expected[5:9])
    assert pixels.shape == expected.shape
    later = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE)
    assert isinstance(later, StoredPixels)  # the cache kept them
    assert np.array_equal(later.whole(), expected)


def test_images_are_decoded_in_the_order_of_the_first_epoch(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    begin, order = threading.Event(), np.random.default_rng(1).permutation(len(keys))
    decoded: list[int] = []
    real = loading._decoded

    def noted(store: Any, key: bytes, data: bytes) -> np.ndarray:
        assert begin.wait(60)
        decoded.append(keys.tolist().index(key))
        return real(store, key, data)

    monkeypatch.setattr(loading, "_decoded", noted)
    monkeypatch.setattr(loading, "BLOCK", 1)
    monkeypatch.setattr(loading, "READERS", 1)
    pixels = DecodedCache(tmp_path, 0).arriving(release, keys, SIZE)
    pixels.expect(order)
    begin.set()
    pixels.whole()
    early = decoded[:1]  # what a thread may have taken before it heard of the order
    assert decoded == early + [row for row in order.tolist() if row not in early]


def test_an_error_is_that_of_the_first_bad_image_and_reaches_whoever_uses_one(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    bad = {bytes(keys[row]) for row in (90, 41, 17)}
    real = loading._decoded

    def damaged(store: Any, key: bytes, data: bytes) -> np.ndarray:
        if key in bad:
            raise BadImageError(f"image {key.decode()} is bad")
        return real(store, key, data)

    monkeypatch.setattr(loading, "_decoded", damaged)
    monkeypatch.setattr(loading, "BLOCK", 8)
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE, threads=3)
    pixels.expect(np.arange(len(keys))[::-1])
    for use in (pixels.whole, lambda: pixels.take(np.array([17])), lambda: pixels.part(0, 50)):
        with pytest.raises(BadImageError, match=keys[17].decode()):
            use()
    assert not list(tmp_path.glob("*.pixels"))
    with pytest.raises(IndexError):
        pixels.take(np.array([len(keys)]))


def test_a_folder_that_cannot_be_written_only_means_decoding_in_memory(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    said: list[str] = []
    cache = DecodedCache(tmp_path, 1 << 30, said.append)

    def full(name: str, shape: Any, fill: Any) -> None:
        fill(np.zeros(shape, np.uint8))  # a disk that fails at the end: everything has been decoded once
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._files, "filled", full)
    pixels = cache.arriving(release, keys, SIZE)
    assert np.array_equal(pixels.whole(), load_images(release, keys, SIZE))
    assert len(said) == 1
