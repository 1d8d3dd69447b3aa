"""The log says at the start which share of the images the cache can hold, and nothing if it holds all."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from config.run_config import RunConfig
from data.pack_writer import Packing, write_pack
from data.release import Release, open_release
from server_app.cache_lines import cache_lines
from server_app.members import Member

NOTEBOOK = RunConfig(image_size=224, fraction_evaluate=0.0, val_split="none")


def members(clients: int, images: int, **more: Any) -> list[Member]:
    return [Member(n, n, images, np.zeros(14, np.int64), "cpu float32", **more) for n in range(clients)]


def release(test_images: int) -> Release:
    """Just the number of clean test images, which is all that counts here."""
    split = SimpleNamespace(keys=np.zeros(test_images, "S1"))
    return SimpleNamespace(store=None, split=lambda name: split)  # type: ignore[return-value]


def test_the_share_counts_whole_lists_beside_the_servers() -> None:
    """A million images of 224 pixels are 140.2 GiB; clean test takes 1.48 of 8, so that four lists of 1.40 fit."""
    lines = cache_lines(NOTEBOOK, release(10_526), members(100, 10_000), sampled=5)
    assert lines == [
        "Cache       keeps 4% of the images, of 142 GiB; 'cache-gib' is 8",
        "            others are decoded in each visit: 38 s a round on a core",
    ]
    assert max(map(len, lines)) <= 68


def test_crops_are_stored_larger() -> None:
    first, _ = cache_lines(
        replace(NOTEBOOK, augmentation="crop-flip"), release(10_526), members(100, 10_000), sampled=10
    )
    assert first == "Cache       keeps 3% of the images, of 185 GiB; 'cache-gib' is 8"


@pytest.mark.parametrize(("gib", "says"), [(142.0, False), (141.0, True), (0.0, True)])
def test_nothing_is_said_where_all_fit(gib: float, says: bool) -> None:
    lines = cache_lines(replace(NOTEBOOK, cache_gib=gib), release(10_526), members(100, 10_000), sampled=5)
    assert bool(lines) is says


def test_each_machine_has_a_cache_of_its_own() -> None:
    two = members(5, 10_000, machine="alpha") + members(5, 10_000, machine="beta")
    assert cache_lines(replace(NOTEBOOK, cache_gib=7.1), release(10_000), two, sampled=5) == []
    first, _ = cache_lines(replace(NOTEBOOK, cache_gib=6.9), release(10_000), two, sampled=5)
    assert first == "Cache       keeps 80% of the images, of 14 GiB; 'cache-gib' is 6.9"


def test_a_pack_of_pixels_needs_no_cache(tiny_sample: Path, tmp_path: Path) -> None:
    small = RunConfig(image_size=32, cache_gib=0.0)
    assert cache_lines(small, open_release(tiny_sample), members(4, 30), sampled=2)
    write_pack(open_release(tiny_sample), tmp_path / "pixels.pack", Packing(32, decoded=True))
    assert cache_lines(small, open_release(tmp_path / "pixels.pack"), members(4, 30), sampled=2) == []
