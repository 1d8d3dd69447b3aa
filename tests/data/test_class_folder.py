"""A folder of photos per class, opened as it is, by all that opens a release."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import BadImageError, DataError
from data.images.decode import as_upright_jpeg
from data.images.loading import load_images
from data.pack_writer import Packing, write_pack
from data.release import open_release
from data.stores.class_folder import ClassFolderStore, _key
from data.stores.pack_index import _of_keys as problem_of_keys

LIES = 6  # orientation: to be turned by 270 degrees


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three photos, in names that keys cannot have as they are, and a class without photos."""
    root = tmp_path / "our photos"
    names = (
        "T Shirt/IMG 1.jpg",
        "T Shirt/100%.png",
        "T Shirt/2024/über.jpg",
        "Coat/a.jpg",
        "Coat/b%20.webp",
        "Coat/c.JPG",
    )
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (40 * number, 100, 0)).save(path)
    (root / "Scarf").mkdir()
    (root / "Coat" / ".DS_Store").write_bytes(b"macOS")
    (root / "notes.txt").write_text("ours")
    return root


def test_labels_are_folders_and_keys_are_paths(photos: Path) -> None:
    release = open_release(photos)
    assert release.class_names == ("Coat", "Scarf", "T Shirt")
    split = release.split("noisy_train")
    assert [key.decode() for key in split.keys] == [
        "images/Coat/a.jpg", "images/Coat/b%2520.webp", "images/Coat/c.JPG", "images/T%20Shirt/100%25.png",
        "images/T%20Shirt/2024/über.jpg", "images/T%20Shirt/IMG%201.jpg",
    ]  # fmt: skip
    assert split.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert split.true.tolist() == [-1] * 6
    reds = load_images(release, split.keys, 16)[:, 8, 8, 0].astype(int)
    assert np.abs(reds - np.array([120, 160, 200, 40, 80, 0])).max() < 8
    assert [release.has(name) for name in ("noisy_train", "clean_train", "clean_val", "clean_test")] == [True] + [
        False
    ] * 3
    assert len(release.double_labelled()[0]) == 0
    with pytest.raises(DataError, match=r"our photos has no clean_test_key_list\.txt; without it 'test-split' must be"):
        release.split("clean_test")


def test_photos_are_turned_upright_and_others_are_as_they_are(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = LIES
    halves = np.zeros((16, 20, 3), np.uint8)
    halves[:8] = 255  # white above: turned, white on the right
    for suffix in ("jpg", "png", "webp", "tif"):
        Image.fromarray(halves).save(photos / "Scarf" / f"lies.{suffix}", exif=exif)
    release = open_release(photos)
    for key in release.split("noisy_train").keys:
        file = Path(release.store.place(key)).read_bytes()
        lies = b"lies" in key
        stored = release.store.encoded(key)
        assert stored == (as_upright_jpeg(file)[0] if lies and b"tif" not in key else file), key
        if lies:
            (pixels,) = load_images(release, np.array([key]), 16)
            assert pixels[:, 10:].min() > 200, key
            assert pixels[:, :6].max() < 60, key


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00II*\x00"])
def test_a_damaged_photo_is_named(photos: Path, content: bytes) -> None:
    (photos / "Coat" / "a.jpg").write_bytes(content)
    release = open_release(photos)
    with pytest.raises(BadImageError, match=r"image images/Coat/a\.jpg cannot be read from .*our photos/Coat/a\.jpg"):
        load_images(release, release.split("noisy_train").keys, 16)
    (photos / "Coat" / "a.jpg").unlink()
    with pytest.raises(BadImageError, match=r"image images/Coat/a\.jpg is missing"):
        release.store.encoded(b"images/Coat/a.jpg")


def test_a_cut_photo_that_lies_is_named(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = LIES
    path = photos / "Coat" / "a.jpg"
    Image.effect_noise((200, 160), 50).convert("RGB").save(path, exif=exif)
    path.write_bytes(path.read_bytes()[:3000])
    release = open_release(photos)
    with pytest.raises(BadImageError, match=r"a\.jpg \(.*truncated"):
        load_images(release, release.split("noisy_train").keys[:1], 16)


def test_what_is_no_folder_of_photos_is_refused_in_one_sentence(photos: Path) -> None:
    def refused(*words: str) -> None:
        with pytest.raises(DataError) as caught:
            open_release(photos)
        told = str(caught.value)
        assert all(word in told for word in words), told
        assert told.endswith(".")
        assert "\n" not in told

    (photos / "Scarf" / "a.raw").write_bytes(b"raw")
    refused("class 'Scarf' has 0 images (left out: 1 .raw;", "it must have one, or be empty.")
    (photos / "Scarf" / "a.raw").unlink()
    long = photos / "Scarf" / ("x" * 150) / ("y" * 150 + ".jpg")
    long.parent.mkdir()
    shutil.copy(photos / "Coat" / "a.jpg", long)
    refused("has too long a path", "at most 248 bytes, or `python -m data import folder` it.")
    shutil.rmtree(long.parent)
    (photos / "Train").mkdir()
    (photos / "Valid").mkdir()
    refused("holds Train, Valid, which are splits of a dataset")
    for name in ("Train", "Valid", "Scarf", "Coat"):
        shutil.rmtree(photos / name)
    refused("holds 1 folders; it must hold one folder of images per class, at least 2")
    (photos / "Coat").mkdir()
    assert open_release(photos).class_names == ("Coat", "T Shirt")
    shutil.rmtree(photos / "T Shirt")
    refused("holds none of the release's text files, only Coat, notes.txt")


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=2, max_size=5))
def test_a_key_names_its_file_whatever_bytes_it_has(parts: list[bytes]) -> None:
    names = [part.replace(b"/", b"_").replace(b"\0", b"_").lstrip(b".") or b"x" for part in parts]
    root = Path("/photos")
    path = root / "/".join(os.fsdecode(name) for name in names)
    key = _key(path, root)
    assert problem_of_keys(np.frombuffer(key, np.uint8).reshape(1, -1)) == ""
    store = object.__new__(ClassFolderStore)
    store.images = root
    assert store.path(key) == path


def test_a_pack_of_it_holds_the_same(photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = LIES
    Image.effect_noise((20, 16), 50).convert("RGB").save(photos / "Scarf" / "lies.jpg", exif=exif)
    folder = open_release(photos)
    for name, packing in (("files", Packing()), ("pixels", Packing(16, decoded=True))):
        write_pack(folder, tmp_path / name, packing)
        packed = open_release(tmp_path / name)
        assert packed.class_names == folder.class_names
        one, other = packed.split("noisy_train"), folder.split("noisy_train")
        assert one.digest == other.digest
        assert np.array_equal(load_images(packed, one.keys, 16), load_images(folder, other.keys, 16))
        with pytest.raises(DataError, match=rf"{name} has no clean_val_key_list\.txt; without it 'val-split' must not"):
            packed.split("clean_val")


def test_check_names_what_is_left_out_what_is_missing_and_what_is_damaged(photos: Path, tmp_path: Path) -> None:
    def checked() -> tuple[int, str]:
        done = CliRunner().invoke(app, ["check", str(photos), "--out", str(tmp_path / "findings.tsv")])
        return done.exit_code, done.output

    code, said = checked()
    assert code == 0, said
    assert "note  missing list: 3\n    clean_train_key_list.txt: without it" in said
    assert "clean_test_key_list.txt: without it 'test-split' must be none\n" in said
    assert f"{photos / 'notes.txt'}: in no class folder" in said
    assert "complete and sound." in said
    exif = Image.Exif()
    exif[0x0112] = LIES
    path = photos / "Coat" / "a.jpg"
    Image.effect_noise((200, 160), 50).convert("RGB").save(path, exif=exif)
    file = path.read_bytes()
    path.write_bytes(file[: len(file) // 2] + bytes(600) + file[len(file) // 2 + 600 :])
    code, said = checked()
    assert code == 0, said
    assert "note  suspect image: 1\n    images/Coat/a.jpg" in said  # of the file, not of what turning it leaves
    path.write_bytes(b"")
    code, said = checked()
    assert code == 1
    assert "PROBLEM  zero-byte image: 1\n    images/Coat/a.jpg: at " in said


def test_the_other_commands_take_it(photos: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return done.output

    shown = said("show", str(photos)).splitlines()
    assert shown[0].split() == ["class", "noisy_train", "noisy", "=", "clean"]
    assert [line.split()[-2] for line in shown[1:5]] == ["3", "0", "3", "6"]
    assert shown[5].startswith("There is no clean_train, clean_val, clean_test; ")
    assert "2 clients hold 6 of 6 images" in said("partition", str(photos), "--clients", "2")
    assert "6 images" in said("pack", str(photos), "--out", str(tmp_path / "photos.pack"))
    done = CliRunner().invoke(app, ["match", str(photos), "--out", str(tmp_path / "matched")])
    assert "holds class folders (Coat, T Shirt) and no text files" in str(done.exception)


def test_two_sites_whose_photos_have_the_same_names_are_told_apart(photos: Path, tmp_path: Path) -> None:
    """A site is known by its images, and cameras and scripts name photos alike everywhere."""
    copy = tmp_path / "a copy"
    shutil.copytree(photos, copy)
    one, same = (open_release(folder) for folder in (photos, copy))
    assert one.identity(one.split("noisy_train")) == same.identity(same.split("noisy_train"))
    Image.new("RGB", (30, 30), (1, 2, 3)).save(copy / "Coat" / "a.jpg")
    other = open_release(copy)
    assert other.split("noisy_train").digest == one.split("noisy_train").digest
    assert other.identity(other.split("noisy_train")) != one.identity(one.split("noisy_train"))


@pytest.mark.parametrize("place", [0, -1])
def test_so_are_those_whose_sizes_are_the_same_as_well(photos: Path, tmp_path: Path, place: int) -> None:
    copy = tmp_path / "a copy"
    shutil.copytree(photos, copy)
    file = bytearray((copy / "Coat" / "a.jpg").read_bytes())
    file[place] ^= 1
    (copy / "Coat" / "a.jpg").write_bytes(file)
    one, other = (open_release(folder) for folder in (photos, copy))
    assert one.identity(one.split("noisy_train")) != other.identity(other.split("noisy_train"))
    assert len(one.store.encoded(b"images/Coat/a.jpg")) == len(file)
    (copy / "Coat" / "a.jpg").unlink()
    assert len(other.identity(other.split("noisy_train"))) == 16


def test_and_those_of_packs(photos: Path, tmp_path: Path) -> None:
    packs = []
    for number in (0, 1):
        Image.new("RGB", (20, 16), (9, 99, number)).save(photos / "Coat" / "a.png")
        write_pack(open_release(photos), tmp_path / f"{number}.pack", Packing(16, decoded=True))
        packs.append(open_release(tmp_path / f"{number}.pack"))
    one, other = (pack.split("noisy_train") for pack in packs)
    assert one.digest == other.digest
    assert packs[0].identity(one) != packs[1].identity(other)


def test_a_pack_of_the_released_images_is_known_by_their_names(tiny_sample: Path, tmp_path: Path) -> None:
    folder = open_release(tiny_sample)
    write_pack(folder, tmp_path / "pack", Packing(16, decoded=True))
    pack = open_release(tmp_path / "pack")
    one, other = (release.split("noisy_train") for release in (folder, pack))
    assert pack.identity(other) == folder.identity(one) == one.digest
