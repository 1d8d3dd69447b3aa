"""Any folder of images, one subfolder per class, into the released layout and back."""

import errno
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.images.loading import load_images
from data.photo_folders import BROKEN, find_photos, in_words
from data.release import open_release
from data.sources.folder import Shares, import_folder
from data.sources.writing import LEFT_OUT


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of 20 images, JPEG and PNG, each image one colour that names its class and number."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cats", "dogs", "Äpfel")):
        for index in range(20):
            path = folder / name / f"{index}.{'jpg' if index % 2 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 16), (60 * label + 40, 10 * index, 0)).save(path)
    (folder / "cats" / "._0.jpg").write_bytes(b"macOS")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "note").write_text("a note")
    (folder / "cats" / ".thumbnails").mkdir()
    (folder / "cats" / ".thumbnails" / "0.jpg").write_bytes((folder / "cats" / "1.jpg").read_bytes())
    return folder


def test_every_image_arrives_once_under_its_class(photos: Path, tmp_path: Path) -> None:
    (photos / "dogs" / "notes.txt").write_text("no image")
    done = import_folder(photos, tmp_path / "out", Shares(0.1, 0.1, 0.2), noise_rate=0.0, seed=1)
    assert done.counts == {"noisy_train": 36, "clean_train": 6, "clean_val": 6, "clean_test": 12}
    assert sorted(done.left_out) == [
        (photos / ".hidden" / "note", "hidden"),
        (photos / "cats" / "._0.jpg", "hidden"),
        (photos / "cats" / ".thumbnails" / "0.jpg", "hidden"),
        (photos / "dogs" / "notes.txt", ".txt"),
    ]
    assert done.suspect == {}
    release = open_release(tmp_path / "out")
    assert release.class_names == ("cats", "dogs", "Äpfel")
    seen = []
    for name in done.counts:
        split = release.split(name)
        pixels = load_images(release, split.keys, 16)
        seen += [(int(label), int(pixel[8, 8, 0])) for label, pixel in zip(split.labels, pixels, strict=True)]
    assert len(seen) == 60
    assert all(abs(red - (60 * label + 40)) < 8 for label, red in seen)
    assert [sum(label == wanted for label, _ in seen) for wanted in range(3)] == [20, 20, 20]


def test_jpegs_are_copied_byte_for_byte(photos: Path, tmp_path: Path) -> None:
    import_folder(photos, tmp_path / "out", Shares(), noise_rate=0.0, seed=1)
    sources = {path.read_bytes() for path in photos.rglob("[0-9]*.jpg")}
    copies = {path.read_bytes() for path in (tmp_path / "out" / "images").rglob("*.jpg")}
    assert sources <= copies


def test_the_seed_decides_and_noise_is_kept_apart(photos: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        import_folder(photos, tmp_path / name, Shares(), noise_rate=0.5, seed=seed)
    lists = [(tmp_path / name / "noisy_label_kv.txt").read_bytes() for name in ("one", "again", "other")]
    assert lists[0] == lists[1]
    assert lists[0] != lists[2]
    release = open_release(tmp_path / "one")
    split = release.split("noisy_train")
    lines = (tmp_path / "one" / "true_label_kv.txt").read_text(encoding="utf-8").split("\n")[:-1]
    true = {key.encode(): int(label) for key, label in (line.split(" ") for line in lines)}
    wrong = np.mean([true[bytes(key)] != label for key, label in zip(split.keys, split.labels, strict=True)])
    assert 0.2 < wrong < 0.8
    assert len(release.double_labelled()[0]) == 0


def test_splits_are_drawn_not_cut_off_the_sorted_files(photos: Path, tmp_path: Path) -> None:
    import_folder(photos, tmp_path / "out", Shares(), noise_rate=0.0, seed=1)
    release = open_release(tmp_path / "out")
    pixels = load_images(release, release.split("clean_test").keys, 16)[:, 8, 8, 1]
    numbers = {round(green / 10) for green in pixels.tolist()}
    assert len(numbers) > 4  # 4 files of each of 3 classes; by name they would be the same 4 numbers in each


@pytest.mark.parametrize("size", [4, 5, 7, 30])
def test_every_list_gets_an_image_of_every_class(size: int) -> None:
    for shares in (Shares(0.1, 0.1, 0.2), Shares(0.3, 0.3, 0.39), Shares(0.01, 0.01, 0.01)):
        counts = shares.counts(size)
        assert min(counts.values()) >= 1
        assert sum(counts.values()) < size


def test_refusals_name_what_is_wrong(photos: Path, tmp_path: Path) -> None:
    def refused(sentence: str, folder: Path = photos, out: Path = tmp_path / "out", **values: float) -> None:
        clean_train, val, test = (values.get(name, 0.1) for name in ("clean_train", "val", "test"))
        with pytest.raises(DataError, match=sentence):
            given = Shares(clean_train, val, test)
            import_folder(folder, out, given, values.get("noise_rate", 0.0), int(values.get("seed", 1)))
        assert not out.exists() or out == photos

    refused("nowhere is not a folder", folder=tmp_path / "nowhere")
    refused("holds 0 folders", folder=photos / "cats")
    refused("which is inside", out=photos / "out")
    refused("--test is 0", test=0.0)
    refused("add up to 1 or more", clean_train=0.5, val=0.4)
    refused("--noise-rate is 1", noise_rate=1.0)
    refused("--seed is -1", seed=-1)
    (photos / "few").mkdir()
    refused("class 'few' has 0 images; it must have at least 4")
    (photos / "few").rmdir()
    (photos / "dogs" / "broken.jpg").write_bytes(b"not an image")
    refused(r"broken\.jpg cannot be read as an image")
    (photos / "dogs" / "broken.jpg").unlink()
    Image.new("L", (7100, 7100)).save(photos / "dogs" / "large.jpg")
    refused(r"large\.jpg cannot be read as an image \(7100 x 7100 pixels are more than 50,000,000\)")


def listed(path: Path) -> dict[str, str]:
    """A list of files: paths to reasons."""
    return {name: why for why, name in (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())}


def test_all_that_is_left_out_is_named_and_nothing_of_it_is_imported(photos: Path, tmp_path: Path) -> None:
    picture = (photos / "cats" / "1.jpg").read_bytes()

    def put(name: str) -> str:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(picture)
        return str(photos / name)

    made = [put("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"), put("cats/@eaDir/1.jpg"), put("__MACOSX/cats/1.jpg"),
            put("dogs/Thumbs.db")]  # fmt: skip
    hidden = [put(".hidden/note"), put(".DS_Store"), put("cats/._0.jpg"), put("cats/.thumbnails/0.jpg")]
    (photos / "dogs" / "album").symlink_to(photos / "cats")
    (photos / "dogs" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "dogs" / "linked.jpg").symlink_to(photos / "cats" / "1.jpg")
    (photos / "birds").symlink_to(photos / "Äpfel")
    os.mkfifo(photos / "dogs" / "pipe.jpg")
    expected = {
        **dict.fromkeys(made, "made by a machine, not by its user"), **dict.fromkeys(hidden, "hidden"),
        put("readme.jpg"): "in no class folder", put("dogs/a.heic2"): ".heic2", put("dogs/b"): "without a suffix",
        str(photos / "dogs" / "album"): "a link to a folder, which is not followed",
        str(photos / "dogs" / "gone.jpg"): "a link that leads nowhere", str(photos / "dogs" / "pipe.jpg"): "no file",
        repr(put("dogs/two\nlines")): "without a suffix",
    }  # fmt: skip
    done = import_folder(photos, tmp_path / "out", Shares(), noise_rate=0.0, seed=1)
    assert sum(done.counts.values()) == 81  # birds and the linked image are there
    assert listed(tmp_path / "out" / LEFT_OUT) == expected
    assert len(done.left_out) == len(expected)
    assert in_words(done.left_out).startswith("4 hidden, 4 made by a machine, not by its user, 2 ")
    assert open_release(tmp_path / "out").class_names == ("birds", "cats", "dogs", "Äpfel")


def test_all_broken_files_are_named_at_once(photos: Path, tmp_path: Path) -> None:
    broken = [photos / "cats" / "3.jpg", photos / "dogs" / "5.jpg", photos / "dogs" / "empty.png"]
    for path in broken:
        path.write_bytes(path.name.encode() if "empty" not in path.name else b"")
    with pytest.raises(DataError, match=r"^3 files cannot be imported, all named in .*out\.broken\.txt; the first: "):
        import_folder(photos, tmp_path / "out", Shares(), noise_rate=0.0, seed=1)
    named = listed(tmp_path / "out.broken.txt")
    assert named.keys() == set(map(str, broken))
    assert all("cannot be read as an image" in why for why in named.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.broken.txt", "photos"]


def folders(top: Path, *names: str) -> Path:
    for name in names:
        (top / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8)).save(top / name / f"{index}.jpg")
    return top


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train/cats", "train/dogs", "valid/cats", "test/cats"], "import {top}/train, of which new splits are"),
        (["train", "valid", "test"], "which are splits of a dataset, not classes; sort their images into one"),
        (["Train/a", "Train/b"], "{top} holds Train, which are splits of a dataset, not classes; import {top}/Train"),
        (["photos/a", "photos/b"], "per class, at least 2, as {top}/photos does: import that."),
        (["a"], "holds 1 folders; it must hold one folder of images per class, at least 2."),
    ],
)  # fmt: skip
def test_splits_are_no_classes(tmp_path: Path, names: list[str], sentence: str) -> None:
    top = folders(tmp_path / "export", *names)
    with pytest.raises(DataError) as refused:
        import_folder(top, tmp_path / "out", Shares(), noise_rate=0.0, seed=1)
    assert sentence.format(top=top) in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    done = import_folder(folders(tmp_path / "toys", "train", "car"), tmp_path / "out", Shares(), 0.0, 1)
    assert sum(done.counts.values()) == 8
    assert done.left_out == []
    assert not (tmp_path / "out" / LEFT_OUT).exists()


def test_a_class_without_images_says_what_it_holds(tmp_path: Path) -> None:
    top = folders(tmp_path / "photos", "a", "b", "c")
    for path in (top / "b").iterdir():
        path.rename(path.with_suffix(".RAW"))
    with pytest.raises(
        DataError, match=r"class 'b' has 0 images \(left out: 4 \.raw; images end in .*\.jpg, .*must have"
    ):
        import_folder(top, tmp_path / "out", Shares(), 0.0, 1)


NAMES = (
    "a.jpg", "b.PNG", ".c.jpg", "d", "e.heic2", "@eaDir", "Thumbs.db", "__MACOSX", ".git", "sub", "x\ty.jpg",
    "\udcff.jpg",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
def test_every_file_is_imported_or_named_and_never_both(tmp_path: Path, seed: int) -> None:
    """In random trees, with links of all kinds."""
    rng = random.Random(seed)
    top = folders(tmp_path / "photos", "one", "two")
    places = [top / "one", top / "two"]
    for _ in range(25):
        path = rng.choice(places) / rng.choice(NAMES)
        action = rng.random()
        if path.exists() or path.is_symlink():
            continue
        if action < 0.3:
            path.mkdir()
            places.append(path)
        elif action < 0.45:
            path.symlink_to(rng.choice([*places, top, tmp_path / "nowhere", top / "one" / "0.jpg"]))
        else:
            shutil.copy(top / "one" / "0.jpg", path)
    there = {Path(folder) / name for folder, inner, files in os.walk(top) for name in (*files, *inner)}
    photos = find_photos(top, frozenset({".jpg", ".png"}))
    named = [*(path for files in photos.classes.values() for path in files), *(path for path, _ in photos.left_out)]
    assert len(named) == len(set(named))
    assert set(named) == {path for path in there if path.is_symlink() or not path.is_dir()}
    for name, files in photos.classes.items():
        assert len(files) >= 4
        assert all(path.is_file() and path.is_relative_to(top / name) for path in files)


def test_what_may_not_be_looked_at_is_left_out_and_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = photos / "cats" / "closed.jpg"
    closed.symlink_to(tmp_path / "nobody" / "may-look.jpg")
    stat = Path.stat

    def not_permitted(path: Path, **how: bool) -> os.stat_result:
        if path == closed and how.get("follow_symlinks", True):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", not_permitted)
    assert (closed, BROKEN) in find_photos(photos, frozenset({".jpg"}), least=0).left_out


def test_a_whole_file_system_is_not_looked_through() -> None:
    with pytest.raises(DataError, match=r"^/ is a whole file system; it must be a folder that holds one folder of"):
        find_photos(Path("/"), frozenset({".jpg"}))
