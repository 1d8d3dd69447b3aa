"""What fits into the cache stays, and nothing is written in vain."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.release import Release, open_release
from tests.data.caches import BOUND, BYTES, CLIENTS, SIZE, counted_bytes, counted_decodings, grow_old, in_use


@pytest.fixture
def release(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@pytest.fixture
def lists(release: Release) -> list[np.ndarray]:
    return np.split(release.split("noisy_train").keys, CLIENTS)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_decodings(monkeypatch)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_bytes(monkeypatch)


def one_process(folder: Path, run: str) -> Callable[[], DecodedCache]:
    cache = DecodedCache(folder, BOUND, run=run)
    return lambda: cache


def process_per_message(folder: Path, run: str) -> Callable[[], DecodedCache]:
    return lambda: DecodedCache(folder, BOUND, run=run)


@pytest.mark.parametrize("processes", [one_process, process_per_message])
@pytest.mark.parametrize("before", ["nothing", "an earlier run", "an earlier run of smaller lists"])
def test_hits_are_the_share_that_fits_and_nothing_is_written_in_vain(
    release: Release, lists: list[np.ndarray], decoded: list[int], written: list[int], tmp_path: Path,
    processes: Callable[[Path, str], Callable[[], DecodedCache]], before: str,
) -> None:  # fmt: skip
    if before != "nothing":
        earlier = DecodedCache(tmp_path, BOUND, run="earlier")
        for keys in np.split(release.split("noisy_train").keys, CLIENTS * (1 if before == "an earlier run" else 6)):
            earlier.images(release, keys[::-1], SIZE)
        assert sum(written) == BOUND
        grow_old(tmp_path)
    decoded.clear()
    written.clear()
    process = processes(tmp_path, "now")
    for server_round in range(5):
        for keys in lists:
            images = process().images(release, keys, SIZE)
            assert np.array_equal(images, load_images(release, keys, SIZE))
            assert in_use(tmp_path) <= BOUND
        assert len(decoded) == CLIENTS + 7 * server_round
    assert sum(written) == BOUND


def test_lists_of_different_sizes_fill_what_is_left(
    release: Release, lists: list[np.ndarray], written: list[int], tmp_path: Path
) -> None:
    cache = DecodedCache(tmp_path, BOUND, run="one")
    for keys in (lists[0], np.concatenate(lists[1:4]), lists[4], lists[5], lists[6][:3]):
        for _ in range(3):
            cache.images(release, keys, SIZE)
    assert written == [BYTES, BYTES, BYTES]


def test_runs_that_share_a_folder_do_not_drive_each_other_out(
    release: Release, lists: list[np.ndarray], written: list[int], tmp_path: Path
) -> None:
    first, second = (process_per_message(tmp_path, run) for run in ("first", "second"))
    for keys in lists:
        first().images(release, keys, SIZE)
    grow_old(tmp_path)
    for _ in range(4):
        for keys in lists:
            first().images(release, keys, SIZE)
            second().images(release, keys[::-1], SIZE)
            assert in_use(tmp_path) <= BOUND
    assert sum(written) <= 2 * BOUND
