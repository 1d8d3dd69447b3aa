"""Mean and deviation of each channel: numbers worked by hand, whatever the blocks and threads, and what is kept."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import BadImageError, DataError
from data.images import channels
from data.images.channels import Sums, channels_of, spaced
from data.images.loading import load_images
from data.normalization import Normalization
from data.pack_writer import Packing, write_pack
from data.release import Release, Split, open_release

SIDE = 16
# Red is 0 in one image and 255 in the other. Green is 51 and 153. Blue is 51 in the first image, and in the second 0 in
# its left half and 255 in its right half: a mean of (51 + 51 + 0 + 255) / 4 = 89.25, and a variance of
# (51² + 51² + 0² + 255²) / 4 - 89.25² = 9591.1875, whose root is 97.9346 = 0.384057 * 255.
BY_HAND = Normalization((0.5, 0.4, 0.35), (0.5, 0.2, 0.384057))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    first, second = (np.zeros((SIDE, SIDE, 3), np.uint8) for _ in range(2))
    first[:] = (0, 51, 51)
    second[:] = (255, 153, 0)
    second[:, SIDE // 2 :, 2] = 255
    for name, pixels in (("a", first), ("b", second)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "1.png")  # which loses nothing
    return tmp_path / "photos"


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each block that was decoded had."""
    counts: list[int] = []

    def counting(release: Release, keys: np.ndarray, size: int, threads: int = 1) -> np.ndarray:
        counts.append(len(keys))
        return load_images(release, keys, size, threads)

    monkeypatch.setattr(channels, "load_images", counting)
    return counts


def opened(root: Path) -> tuple[Release, Split]:
    release = open_release(root)
    return release, release.split("noisy_train")


def kept_files(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "clothing1m-fl" / "index").glob("*.channels.json"))


def test_two_images_by_hand(photos: Path) -> None:
    found = channels_of(*opened(photos), SIDE)
    assert found.normalization == BY_HAND
    assert (found.images, found.unreadable, found.first) == (2, 0, "")


def test_the_settings_read_back_as_they_are() -> None:
    assert BY_HAND.as_args() == "mean=[0.5, 0.4, 0.35] deviation=[0.5, 0.2, 0.384057]"


def test_neither_blocks_nor_threads_matter(tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, split = opened(tiny_sample)
    found = set()
    for number, (block, threads) in enumerate(((1, 1), (7, 3), (50, 2), (500, 1))):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(number)))
        monkeypatch.setattr(channels, "BLOCK_BYTES", block * 3 * SIDE**2)
        found.add(channels_of(release, split, SIDE, threads).normalization)
    pixels = load_images(release, split.keys, SIDE).reshape(-1, 3) / 255.0
    (only,) = found
    np.testing.assert_allclose(only.mean, pixels.mean(axis=0), atol=5.1e-7)
    np.testing.assert_allclose(only.deviation, pixels.std(axis=0), atol=5.1e-7)


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_sums_are_exact(values: list[int]) -> None:
    images = np.array(values, np.uint8).reshape(2, 1, 2, 3)
    together, apart = Sums(), Sums()
    together.add(images)
    for image in images:
        apart.add(image[None])
    assert together.numbers() == apart.numbers()
    means, deviations = together.numbers()
    np.testing.assert_allclose(means, images.reshape(4, 3).mean(axis=0) / 255, atol=5.1e-7)
    np.testing.assert_allclose(deviations, images.reshape(4, 3).std(axis=0) / 255, atol=5.1e-7)


def test_many_bright_images_do_not_overflow() -> None:
    """As if there were 50,000 images of 1,024 pixels: 50,000 * 2**20 * 255**2 is beyond 32 bits, and 53."""
    sums = Sums()
    sums._pixels, sums._values = 50_000 * 2**20, [50_000 * 2**20 * 255] * 3
    sums._squares = [50_000 * 2**20 * 255**2] * 3
    assert sums.numbers() == ([1.0] * 3, [0.0] * 3)


@pytest.mark.parametrize(
    ("count", "most", "rows"), [(3, 5, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (7, 7, [*range(7)]), (0, 5, [])]
)
def test_of_a_long_list_some_are_taken_evenly(count: int, most: int, rows: list[int]) -> None:
    assert spaced(count, most).tolist() == rows


def test_only_so_many_images_are_read(
    tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, measurements: list[int]
) -> None:
    monkeypatch.setattr(channels, "spaced", lambda count: spaced(count, 50))
    assert channels_of(*opened(tiny_sample), SIDE).images == 50
    assert sum(measurements) == 50


def test_what_was_measured_is_kept(photos: Path, tmp_path: Path, measurements: list[int]) -> None:
    for _ in range(3):
        assert channels_of(*opened(photos), SIDE).normalization == BY_HAND
    assert measurements == [2]
    assert len(kept_files(tmp_path)) == 1


def test_another_size_is_measured_for_itself(photos: Path, tmp_path: Path, measurements: list[int]) -> None:
    for side in (SIDE, 2 * SIDE, SIDE):
        channels_of(*opened(photos), side)
    assert measurements == [2, 2]
    assert len(kept_files(tmp_path)) == 2


def test_other_images_are_measured_anew(photos: Path, measurements: list[int]) -> None:
    channels_of(*opened(photos), SIDE)
    Image.new("RGB", (SIDE, SIDE), (255, 153, 89)).save(photos / "b" / "1.png")
    assert channels_of(*opened(photos), SIDE).normalization.deviation[:2] == (0.5, 0.2)
    Image.new("RGB", (SIDE, SIDE), (51, 0, 0)).save(photos / "b" / "2.png")
    assert channels_of(*opened(photos), SIDE).images == 3
    assert measurements == [2, 2, 3]


def test_whatever_is_in_the_way_is_measured_anew(photos: Path, tmp_path: Path, measurements: list[int]) -> None:
    channels_of(*opened(photos), SIDE)
    (path,) = kept_files(tmp_path)
    good = path.read_bytes()
    digit = good.replace(b"0.35", b"0.36", 1)
    other = json.loads(good)
    other["facts"][1:3] = [[0.5, 0.4], [0.5, 0.2, 0.3]]
    other["sha256"] = channels._checksum(other["facts"])  # sealed, but no numbers
    damages = [
        b"", b"{", b"[]", b"null", b"[" * 9_000, good[:-9], digit, b'{"facts": [], "sha256": 1}', b"\xff\x00" * 40,
        good + b" " * 20_000, json.dumps(other).encode(),
    ]  # fmt: skip
    for damage in damages:
        assert damage != good
        path.write_bytes(damage)
        measurements.clear()
        assert channels_of(*opened(photos), SIDE).normalization == BY_HAND
        assert measurements == [2], damage
        assert path.read_bytes() == good


def test_a_pipe_or_a_folder_in_the_way_is_not_waited_for(photos: Path, tmp_path: Path) -> None:
    channels_of(*opened(photos), SIDE)
    (path,) = kept_files(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert channels_of(*opened(photos), SIDE).normalization == BY_HAND
    path.unlink()
    path.mkdir()
    assert channels_of(*opened(photos), SIDE).normalization == BY_HAND


def test_a_channel_without_a_difference_is_refused(photos: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (SIDE, SIDE), (7 if name == "a" else 8, 100, 50)).save(photos / name / "1.png")
    with pytest.raises(DataError, match="have the same green everywhere") as error:
        channels_of(*opened(photos), SIDE)
    assert str(photos) in str(error.value)


def test_images_that_cannot_be_read(photos: Path, measurements: list[int]) -> None:
    (photos / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    release, split = opened(photos)
    with pytest.raises(BadImageError, match=r"a/2\.png"):
        channels_of(release, split, SIDE)
    found = channels_of(release, split, SIDE, leave_out=True)
    assert (found.normalization, found.images, found.unreadable) == (BY_HAND, 2, 1)
    assert "a/2.png" in found.first
    measurements.clear()
    assert channels_of(release, split, SIDE, leave_out=True) == found
    assert measurements == []
    with pytest.raises(BadImageError, match=r"a/2\.png"):  # although there is a file for these images
        channels_of(release, split, SIDE)
    for name in ("a", "b"):
        (photos / name / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 3 images of noisy_train can be read; the first: image"):
        channels_of(*opened(photos), SIDE, leave_out=True)


def test_a_pack_of_pixels_is_taken_as_it_is(photos: Path, tmp_path: Path) -> None:
    write_pack(open_release(photos), tmp_path / "x.pack", Packing(SIDE, decoded=True))
    for size in (SIDE, 224):
        assert channels_of(*opened(tmp_path / "x.pack"), size).normalization == BY_HAND


def show(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["show", *map(str, arguments)])
    return done.exit_code, done.output, str(done.exception or "")


def test_the_command_prints_the_settings(photos: Path, tmp_path: Path) -> None:
    line = f"normalization='release' normalization-args='{BY_HAND.as_args()}'\n"
    assert show(photos, "--normalization", "--image-size", SIDE) == (0, line, "")
    write_pack(open_release(photos), tmp_path / "x.pack", Packing(SIDE, decoded=True))
    assert show(tmp_path / "x.pack", "--normalization") == (0, line, "")
    (photos / "a" / "2.png").write_bytes(b"")
    code, said, _ = show(photos, "--normalization", "--image-size", SIDE)
    assert (code, said.startswith("1 images cannot be read"), said.endswith(line)) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image-size", "32"), "--image-size or --train-split is given without --normalization"),
        (("--train-split", "clean"), "--image-size or --train-split is given without --normalization"),
        (("--normalization",), "--image-size is 0; with --normalization it must be the image-size of the run, from 16"),
        (("--normalization", "--image-size", "32", "--train-split", "all"), "there is no training split 'all'"),
        (("--normalization", "--image-size", "32", "--train-split", "clean"), "has no clean_train_key_list.txt"),
        (("--normalization", "--plot", "x.png"), "--plot and --normalization are given"),
    ],
)
def test_what_the_command_refuses(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = show(photos, *arguments)
    assert code == 1
    assert said in error
