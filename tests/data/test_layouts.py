"""Every layout of Clothing1M seen in the wild: accepted, or refused with what was found and what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.errors import DataError
from data.layout.finding import CATEGORIES, CLEAN_LABELS, LIST_FILES, NOISY_LABELS, TEXT_FILES, find_layout
from data.release import open_release

Into = Callable[..., None]


def refusal(root: Path, *expected: str) -> str:
    with pytest.raises(DataError) as caught:
        open_release(root)
    sentence = str(caught.value)
    assert str(root) in sentence
    for words in expected:
        assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize("text", ["", "annotations", "label"])
@pytest.mark.parametrize("images", ["images", ""])
def test_accepted_layouts(tmp_path: Path, texts_into: Into, images_into: Into, text: str, images: str) -> None:
    texts_into(tmp_path / text)
    images_into(tmp_path / images)
    release = open_release(tmp_path)
    for split in ("noisy_train", "clean_train", "clean_val", "clean_test"):
        for key in release.split(split).keys:
            assert Path(release.store.place(key)) == tmp_path / images / key.decode().removeprefix("images/")
            assert Path(release.store.place(key)).is_file()
    assert len(release.split("noisy_train").keys) == 6


def test_what_macos_and_readers_leave_behind_is_ignored(tmp_path: Path, texts_into: Into, images_into: Into) -> None:
    texts_into(tmp_path)
    images_into(tmp_path / "images")
    for name in ("._images", ".DS_Store", "__MACOSX/._x", "images/.DS_Store", "images/._0", "README.md", "venn.png"):
        touch(tmp_path / name)
    touch(tmp_path / "images" / "0.tar")  # kept after unpacking
    assert find_layout(tmp_path).images == tmp_path / "images"


def test_a_folder_of_leftovers_only_is_empty(tmp_path: Path) -> None:
    touch(tmp_path / ".DS_Store")
    touch(tmp_path / "._images")
    refusal(tmp_path, "is empty")


def test_a_relative_root(tmp_path: Path, texts_into: Into, images_into: Into, monkeypatch: pytest.MonkeyPatch) -> None:
    texts_into(tmp_path)
    images_into(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    assert open_release(Path()).class_names == ("Kilt", "Anorak", "Poncho")
    monkeypatch.chdir(tmp_path / "images")
    refusal(Path(), "inside a release", str(tmp_path))


@pytest.mark.parametrize("missing", [CATEGORIES, NOISY_LABELS, CLEAN_LABELS])
@pytest.mark.parametrize("folder", ["", "annotations"])
def test_class_names_and_labels_must_be_there(
    tmp_path: Path, texts_into: Into, images_into: Into, missing: str, folder: str
) -> None:
    texts_into(tmp_path / folder, **{missing.removesuffix(".txt"): None})
    images_into(tmp_path / "images")
    refusal(tmp_path, f"{tmp_path / folder / missing} is missing")


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_one_list_must_be_there(tmp_path: Path, texts_into: Into, images_into: Into, folder: str) -> None:
    texts_into(tmp_path / folder, **{file.removesuffix(".txt"): None for file in LIST_FILES.values()})
    images_into(tmp_path / "images")
    refusal(tmp_path, f"{tmp_path / folder} has no list of images", *LIST_FILES.values())


def test_joined_lists(tmp_path: Path, images_into: Into) -> None:
    images_into(tmp_path / "images")
    for name in ("clean_train.txt", "clean_val.txt", "clean_test.txt", "noisy_train.txt"):
        touch(tmp_path / name)
    refusal(tmp_path, "clean_test.txt", "joined", "annotations.zip")


@pytest.mark.parametrize("classes", [["q0000", "q0013"], ["0", "13"], ["T-Shirt", "Underwear"]])
@pytest.mark.parametrize("names", [("val", "test"), ("clean_val", "clean_test")])
def test_class_folders_sorted_by_a_script(tmp_path: Path, classes: list[str], names: tuple[str, str]) -> None:
    for split in ("noisy_train", "clean_train", *names):
        for name in classes:
            picture(tmp_path / split / name / "1,2.jpg")
    refusal(
        tmp_path,
        "noisy_train",
        "clean_train",
        names[0],
        "script",
        f"python -m data import folder {tmp_path / 'noisy_train'} --out DIR",
    )


@pytest.mark.parametrize("classes", [["q0000", "q0013"], ["0", "1", "13"], ["T-Shirt", "Underwear"]])
def test_images_in_class_folders(tmp_path: Path, classes: list[str]) -> None:
    for name in classes:
        picture(tmp_path / name / "1,2.jpg")
    assert open_release(tmp_path).class_names == tuple(sorted(classes))
    with pytest.raises(DataError, match=f"class folders .* `python -m data import folder {tmp_path} --out DIR`"):
        find_layout(tmp_path)  # as for `python -m data match`


def test_the_npz_upload(tmp_path: Path) -> None:
    touch(tmp_path / "clothing1m.npz")
    touch(tmp_path / "clothing10k_test.npz")
    refusal(tmp_path, "clothing10k_test.npz", "64-pixel", "get the release")
    refusal(tmp_path / "clothing1m.npz", "is a file", "64-pixel")


def test_the_big_tar(tmp_path: Path) -> None:
    touch(tmp_path / "Clothing1M.tar.gz")
    refusal(tmp_path, "Clothing1M.tar.gz", "unpack it", "annotations.zip", "inside images/")
    refusal(tmp_path / "Clothing1M.tar.gz", "is a file", "unpack it")


def test_the_download_as_it_comes(tmp_path: Path) -> None:
    for name in ("annotations.zip", "images/0.tar", "images/1-008.tar", "README.md", "venn.png"):
        touch(tmp_path / name)
    refusal(tmp_path, "annotations.zip", "unzip it", "unpack each tar inside images/")


def test_annotations_not_unzipped(tmp_path: Path, images_into: Into) -> None:
    images_into(tmp_path / "images")
    touch(tmp_path / "annotations.zip")
    sentence = refusal(tmp_path, "annotations.zip", "unzip it in")
    assert "tar" not in sentence


@pytest.mark.parametrize("tar", ["images/0.tar", "images/0-004.tar", "0.tar"])
def test_tars_not_unpacked(tmp_path: Path, texts_into: Into, tar: str) -> None:
    texts_into(tmp_path)
    touch(tmp_path / tar)
    touch(tmp_path / Path(tar).parent / "._0.tar")
    refusal(tmp_path, f"holds {tar},", "not unpacked", "unpack each tar inside images/")


def test_tars_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "3.tar")
    refusal(tmp_path, "images/3.tar", "no text files", "annotations.zip", "unpack each tar inside images/")


@pytest.mark.parametrize("folder", ["images", ""])
def test_images_without_text_files(tmp_path: Path, images_into: Into, folder: str) -> None:
    images_into(tmp_path / folder)
    refusal(tmp_path, "images but no text files", "annotations.zip")


@pytest.mark.parametrize("create", [True, False])
def test_text_files_without_images(tmp_path: Path, texts_into: Into, create: bool) -> None:
    texts_into(tmp_path)
    if create:
        (tmp_path / "images" / "00").mkdir(parents=True)
    refusal(tmp_path, "no images", "none of the folders 0 to 9" if create else "no folder images")


def test_images_one_level_too_deep(tmp_path: Path, texts_into: Into, images_into: Into) -> None:
    texts_into(tmp_path)
    images_into(tmp_path / "images" / "images")
    refusal(tmp_path, "images/images", "one level too deep", "move")


@pytest.mark.parametrize("text", ["", "annotations", "label"])
def test_one_level_too_high(tmp_path: Path, texts_into: Into, images_into: Into, text: str) -> None:
    texts_into(tmp_path / "clothing1M" / text)
    images_into(tmp_path / "clothing1M" / "images")
    refusal(tmp_path, "one level too high", f"give {tmp_path / 'clothing1M'},")


@pytest.mark.parametrize("inside", ["images", "images/7"])
@pytest.mark.parametrize("text", ["", "annotations"])
def test_too_low(tmp_path: Path, texts_into: Into, images_into: Into, inside: str, text: str) -> None:
    texts_into(tmp_path / text)
    images_into(tmp_path / "images")
    refusal(tmp_path / inside, "inside a release", f"give {tmp_path},")


def test_the_folder_of_text_files_alone(tmp_path: Path, texts_into: Into, images_into: Into) -> None:
    texts_into(tmp_path / "annotations")
    images_into(tmp_path / "images")
    refusal(tmp_path / "annotations", f"give {tmp_path},", "images")


def test_no_folder_at_all(tmp_path: Path) -> None:
    refusal(tmp_path / "absent", "does not exist")
    touch(tmp_path / "photo.jpg")
    refusal(tmp_path / "photo.jpg", "is a file")
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty", "is empty")


def test_something_else_entirely(tmp_path: Path) -> None:
    for number in range(9):
        touch(tmp_path / f"note{number}.md")
    refusal(tmp_path, "none of the release's text files", "note0.md", ", ...", *TEXT_FILES)


@pytest.mark.parametrize("locked", [".", "images"])
def test_permission_denied(
    tmp_path: Path, texts_into: Into, images_into: Into, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts_into(tmp_path)
    images_into(tmp_path / "images")
    listdir = os.listdir

    def deny(folder: Path) -> list[str]:  # a mode of 000 would not stop a test run by root
        if Path(folder) == tmp_path / locked:
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", deny)
    refusal(tmp_path, f"{tmp_path / locked} cannot be read: Permission denied")
