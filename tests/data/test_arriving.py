"""Images that are used while others are still being decoded."""

import gc
import io
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.errors import BadImageError
from data.images import loading
from data.images.arriving import Arriving, Queue, StoppedError
from data.images.decode import decode
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
    expected = data.draw(st.permutations(range(count)))[: count // 2] * data.draw(st.integers(1, 2))
    expected = data.draw(st.permutations(expected))  # methods with two networks need images twice
    queue.put_first(np.array(expected, dtype=np.int64))
    after: list[int] = []
    while len(rows := queue.take(most)):
        assert len(rows) <= most
        after += rows.tolist()
    assert sorted(before + after) == list(range(count))
    wanted = [row for row in dict.fromkeys(expected) if row not in before]
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


def test_a_bad_image_reaches_whoever_uses_one_and_those_who_want_all_get_the_first(
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
    said = set()
    for use in (pixels.whole, lambda: pixels.take(np.array([17])), lambda: pixels.part(0, 50), pixels.finish):
        with pytest.raises(BadImageError) as caught:
            use()
        said.add(str(caught.value))
    assert len(said) == 1  # whichever was found first
    assert said < {f"image {key.decode()} is bad" for key in bad}
    with pytest.raises(BadImageError, match=keys[17].decode()):
        load_images(release, keys, SIZE, threads=3)
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


def test_a_visit_that_fails_ends_decoding(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = release.split("noisy_train").keys
    decoded: list[bytes] = []
    real, close, closed = loading._decoded, Queue.close, threading.Event()

    def noted(store: Any, key: bytes, data: bytes) -> np.ndarray:
        decoded.append(key)
        assert len(decoded) < 10 or closed.wait(60)  # so that it is not done before it is stopped
        return real(store, key, data)

    def closing(queue: Queue) -> None:
        close(queue)
        closed.set()

    monkeypatch.setattr(loading, "_decoded", noted)
    monkeypatch.setattr(Queue, "close", closing)
    monkeypatch.setattr(loading, "BLOCK", 1)
    monkeypatch.setattr(loading, "READERS", 1)
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE)
    pixels.take(np.array([3]))
    pixels.stop()
    seen = len(decoded)
    assert 4 <= seen <= 10
    with pytest.raises(StoppedError):
        pixels.finish()
    assert len(decoded) == seen
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".pixels", ".filling")]
    again = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE)
    assert np.array_equal(again.whole(), load_images(release, keys, SIZE))


def test_a_bad_image_that_nobody_used_is_refused_at_the_end(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    real = loading._decoded

    def damaged(store: Any, key: bytes, data: bytes) -> np.ndarray:
        if key == keys[-1]:
            raise BadImageError("the last one is bad")
        return real(store, key, data)

    monkeypatch.setattr(loading, "_decoded", damaged)
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE)
    with pytest.raises(BadImageError, match="the last one"):
        pixels.finish()


def test_a_block_that_fails_once_arrives_all_the_same(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = release.split("noisy_train").keys
    failed: list[bytes] = []
    real = loading._decoded

    def moody(store: Any, key: bytes, data: bytes) -> np.ndarray:
        if not failed:
            failed.append(key)
            raise BadImageError("for once")
        return real(store, key, data)

    monkeypatch.setattr(loading, "_decoded", moody)
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, keys, SIZE)
    assert np.array_equal(pixels.take(np.arange(len(keys))), load_images(release, keys, SIZE))


def test_any_other_error_reaches_those_who_wait(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(store: Any, key: bytes, data: bytes) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(loading, "_decoded", exhausted)
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, release.split("noisy_train").keys, SIZE)
    for _ in range(2):
        with pytest.raises(MemoryError):
            pixels.take(np.array([50]))


def test_no_images_arrive_at_once(release: Release, tmp_path: Path) -> None:
    pixels = DecodedCache(tmp_path, 1 << 30).arriving(release, release.split("noisy_train").keys[:0], SIZE)
    assert pixels.whole().shape == (0, SIZE, SIZE, 3)
    pixels.finish()


def test_an_error_keeps_no_image_in_memory(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, arrays = release.split("noisy_train").keys, []
    begin = Arriving.begin

    def noted(self: Arriving, images: np.ndarray) -> Queue:
        arrays.append(weakref.ref(images))
        return begin(self, images)

    def damaged(store: Any, key: bytes, data: bytes) -> np.ndarray:
        raise BadImageError("bad")

    monkeypatch.setattr(Arriving, "begin", noted)
    monkeypatch.setattr(loading, "_decoded", damaged)
    pixels = DecodedCache(tmp_path, 0).arriving(release, keys, SIZE)
    gc.disable()
    try:
        with pytest.raises(BadImageError):
            pixels.finish()
        for thread in threading.enumerate():
            if thread.name == "decoding":
                thread.join()
        assert arrays[0]() is None
    finally:
        gc.enable()


def test_decoding_leaves_the_processs_warnings_alone() -> None:
    """Others may change them meanwhile; an image that Pillow warns of is decoded without a word."""
    buffer = io.BytesIO()
    Image.new("P", (20, 20)).save(buffer, "PNG", transparency=bytes(range(256)))
    gc.collect()  # what earlier tests left may warn when it goes
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as with_pillow sets it for the process
        filters, show = list(warnings.filters), warnings.showwarning
        entered: list[object] = []
        here = threading.get_ident()
        plain = warnings.catch_warnings.__enter__

        def noted(self: Any) -> Any:
            entered.extend([self] * (threading.get_ident() == here))
            return plain(self)

        warnings.catch_warnings.__enter__ = noted  # type: ignore[method-assign]
        try:
            assert decode(buffer.getvalue()).shape == (20, 20, 3)
        finally:
            warnings.catch_warnings.__enter__ = plain  # type: ignore[method-assign]
        assert (list(warnings.filters), warnings.showwarning) == (filters, show)
    assert not entered
    assert not heard
