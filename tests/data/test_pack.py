"""Packs: the same images from one file, and every kind of damage reported in one sentence."""

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from data import pack_writer
from data.errors import DataError
from data.images.loading import load_images
from data.pack_writer import Packing, write_pack
from data.release import SPLITS, Release, open_release


@pytest.fixture(scope="module")
def folder(tiny_sample: Path) -> Release:
    return open_release(tiny_sample)


@pytest.fixture(scope="module")
def pack(folder: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "tiny.pack"
    assert write_pack(folder, out, Packing(), threads=2)
    return out


def refusal(path: Path, use: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        release = open_release(path)
        if use:
            load_images(release, release.split("noisy_train").keys, 16)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_pack_holds_what_the_folder_holds(folder: Release, pack: Path) -> None:
    packed = open_release(pack)
    assert packed.class_names == folder.class_names
    for name in SPLITS:
        for field in ("keys", "labels", "true"):
            assert np.array_equal(getattr(packed.split(name), field), getattr(folder.split(name), field))
        keys = folder.split(name).keys
        assert np.array_equal(load_images(packed, keys, 24), load_images(folder, keys, 24))
        assert all(packed.store.encoded(key) == folder.store.encoded(key) for key in keys)
    for one, other in zip(packed.double_labelled(), folder.double_labelled(), strict=True):
        assert np.array_equal(one, other)


def test_a_pack_is_a_safetensors_file(folder: Release, pack: Path) -> None:
    with safe_open(pack, framework="numpy") as file:
        assert file.metadata()["format"] == "clothing1m-fl pack"
        assert json.loads(file.metadata()["classes"]) == list(folder.class_names)
        assert file.get_tensor("counts").tolist() == [120, 20, 12, 40]
        offsets = file.get_tensor("offsets")
        first = file.get_tensor("images")[offsets[0] : offsets[1]].tobytes()
    assert first == folder.store.encoded(folder.split("noisy_train").keys[0])


def test_the_number_of_threads_does_not_matter(folder: Release, pack: Path, tmp_path: Path) -> None:
    write_pack(folder, tmp_path / "one.pack", Packing(), threads=1)
    assert (tmp_path / "one.pack").read_bytes() == pack.read_bytes()


def test_pixels_are_those_of_the_folder(folder: Release, tmp_path: Path) -> None:
    out = tmp_path / "pixels.pack"
    write_pack(folder, out, Packing(image_size=24, decoded=True))
    packed, keys = open_release(out), folder.split("clean_test").keys
    assert np.array_equal(load_images(packed, keys, 24, threads=2), load_images(folder, keys, 24))
    with pytest.raises(DataError, match=r"holds pixels of 24 x 24; images of 32 are needed .* pack at 32"):
        load_images(packed, keys, 32)
    with pytest.raises(DataError, match="holds pixels, not image files; it cannot be packed again"):
        write_pack(packed, tmp_path / "again.pack", Packing())


def test_the_shorter_side_is_made_smaller_and_small_images_stay(folder: Release, tmp_path: Path) -> None:
    write_pack(folder, tmp_path / "20.pack", Packing(image_size=20))
    write_pack(folder, tmp_path / "32.pack", Packing(image_size=32))
    smaller, same = open_release(tmp_path / "20.pack"), open_release(tmp_path / "32.pack")
    for key in folder.split("clean_val").keys:
        with Image.open(folder.store.place(key)) as image:
            expected = (round(image.width * 20 / 32), round(image.height * 20 / 32))
        (tmp_path / "image.jpg").write_bytes(smaller.store.encoded(key))
        with Image.open(tmp_path / "image.jpg") as image:
            assert image.size == expected
        assert same.store.encoded(key) == folder.store.encoded(key)
    pixels = load_images(smaller, folder.split("clean_val").keys, 20).astype(int)
    assert np.abs(pixels - load_images(folder, folder.split("clean_val").keys, 20)).mean() < 2


@settings(max_examples=150)
@given(st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(folder: Release, pack: Path, data: st.DataObject) -> None:
    whole = pack.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begin])
    end_of_images = begin + header["images"]["data_offsets"][1]
    spot = data.draw(st.one_of(
        st.integers(0, len(whole) - 1), st.integers(0, 7), st.integers(8, 1000), st.integers(begin, begin + 3000),
        st.integers(end_of_images, len(whole) - 1),
    ))  # fmt: skip
    flipped = bytearray(whole)
    flipped[spot] ^= 1 << data.draw(st.integers(0, 7))
    path = pack.with_name("flipped.pack")
    path.write_bytes(flipped)
    try:
        release = open_release(path)
        for name in SPLITS:
            assert np.array_equal(release.split(name).labels, folder.split(name).labels)
            keys = folder.split(name).keys
            assert np.array_equal(load_images(release, keys, 16), load_images(folder, keys, 16))
    except DataError as error:
        told = str(error)
        assert str(path) in told
        assert told.endswith(".")
    else:  # only the padding after the images belongs to nothing
        assert end_of_images - 8 <= spot < end_of_images


def test_a_changed_image_is_named(pack: Path, tmp_path: Path) -> None:
    data = bytearray(pack.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin + 700] ^= 1
    path = tmp_path / "changed.pack"
    path.write_bytes(data)
    sentence = refusal(path, use=True)
    assert "is damaged: image images/" in sentence
    assert "has changed since it was packed; copy or pack it again." in sentence


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_a_short_file_is_refused(pack: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.pack"
    path.write_bytes(pack.read_bytes()[:length])
    assert refusal(path).endswith("or a whole file made by `python -m data pack`.")


def test_a_long_file_is_refused(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "long.pack").write_bytes(pack.read_bytes() + b"x")
    assert "is too long: it has" in refusal(tmp_path / "long.pack")


def test_another_version_is_refused(pack: Path, tmp_path: Path) -> None:
    data = pack.read_bytes()
    assert data.count(b'"version":"1"') == 1
    (tmp_path / "new.pack").write_bytes(data.replace(b'"version":"1"', b'"version":"2"'))
    assert "is a pack of version 2; this code reads version 1: pack again." in refusal(tmp_path / "new.pack")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" * 100)
    assert "is a file that is not a safetensors file" in refusal(tmp_path / "photo.jpg")


def test_a_missing_key_is_refused(pack: Path) -> None:
    release = open_release(pack)
    for key in (b"images/1/11/1,111.jpg", b"images/9/99/" + b"9" * 300):
        with pytest.raises(DataError, match="is not in"):
            load_images(release, np.array([key]), 16)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decoded": True}, "--decoded needs --image-size, the side of the pixels to keep."),
        ({"image_size": 8}, "--image-size is 8; it must be from 16 to 1024 pixels."),
        ({"image_size": 2000}, "--image-size is 2000; it must be from 16 to 1024 pixels."),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Packing(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [b"", b"no image", None])
@pytest.mark.parametrize("image_size", [0, 20])
def test_a_bad_image_stops_the_packing(
    write_release: object, tmp_path: Path, damage: bytes | None, image_size: int
) -> None:
    release = open_release(write_release())  # type: ignore[operator]
    path = Path(release.store.place(release.split("noisy_train").keys[3]))
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    if damage == b"no image" and not image_size:
        return  # kept as it is; `check` is what decodes every image
    with pytest.raises(DataError, match=r"image images/3/32/1618033988,141421332\.jpg (is missing|cannot be read)"):
        write_pack(release, tmp_path / "out.pack", Packing(image_size=image_size))
    assert not (tmp_path / "out.pack").exists()


def test_a_finished_pack_is_not_written_again(folder: Release, pack: Path) -> None:
    before = pack.stat().st_mtime_ns
    assert not write_pack(folder, pack, Packing())
    assert pack.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="exists already and is not this pack; give another --out, or delete it"):
        write_pack(folder, pack, Packing(image_size=20))


def test_another_file_is_not_overwritten(folder: Release, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already and is not this pack"):
        write_pack(folder, tmp_path / "notes.txt", Packing())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_pack_begun_with_other_options_is_refused(
    folder: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.pack"
    stop_after(monkeypatch, 60)
    with pytest.raises(KeyboardInterrupt):
        write_pack(folder, out, Packing())
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"out\.pack\.partial was begun from other lists or with other options; delete"):
        write_pack(folder, out, Packing(image_size=20))


def test_two_processes_do_not_write_one_pack(folder: Release, tmp_path: Path) -> None:

    with (tmp_path / "out.pack.partial.rows").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being written by another process"):
            write_pack(folder, tmp_path / "out.pack", Packing())


def test_a_pack_that_cannot_be_written_is_refused(folder: Release, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="which cannot be written: Not a directory"):
        write_pack(folder, tmp_path / "file" / "out.pack", Packing())


def stop_after(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """Make packing stop, as if by Ctrl-C, before one image; each image is a chunk and synced by itself."""
    left = [images]
    convert = Packing.convert

    def counting(self: Packing, release: Release, key: bytes) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return convert(self, release, key)

    monkeypatch.setattr(Packing, "convert", counting)
    monkeypatch.setattr(pack_writer, "CHUNK", 1)
    monkeypatch.setattr(pack_writer, "SYNC_BYTES", 1)


@pytest.mark.parametrize("stops", [[1], [0, 100], [5, 50, 100, 30], [191], [192]])
@pytest.mark.parametrize("torn", [0, 1, 1000])
def test_a_stopped_packing_resumes_to_the_same_bytes(
    folder: Release, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: list[int], torn: int
) -> None:
    out = tmp_path / "out.pack"
    for images in stops:
        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
            stop_after(patch, images)
            write_pack(folder, out, Packing())
            raise SystemExit  # there was nothing left to convert
        row_file, image_file = tmp_path / "out.pack.partial.rows", tmp_path / "out.pack.partial"
        if torn and row_file.exists():  # writes that were under way
            os.truncate(row_file, max(0, row_file.stat().st_size - torn % 9))
            image_file.write_bytes(image_file.read_bytes() + b"torn" * torn)
    counts: list[int] = []
    write_pack(folder, out, Packing(), progress=counts.append)
    assert out.read_bytes() == pack.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pack"]
    assert sum(counts) in (0, 192)
