"""Any folder of images, one subfolder per class, into the released layout and back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.images.loading import load_images
from data.import_folder import Shares, import_folder
from data.release import open_release


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
    (folder / "cats" / ".thumbnails").mkdir()
    (folder / "cats" / ".thumbnails" / "0.jpg").write_bytes((folder / "cats" / "1.jpg").read_bytes())
    return folder


def test_every_image_arrives_once_under_its_class(photos: Path, tmp_path: Path) -> None:
    (photos / "dogs" / "notes.txt").write_text("no image")
    done = import_folder(photos, tmp_path / "out", Shares(0.1, 0.1, 0.2), noise_rate=0.0, seed=1)
    assert done.counts == {"noisy_train": 36, "clean_train": 6, "clean_val": 6, "clean_test": 12}
    assert done.skipped == {".txt": 1}
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
        shares = {"clean_train": 0.1, "val": 0.1, "test": 0.2}
        with pytest.raises(DataError, match=sentence):
            given = Shares(**{key: values.get(key, share) for key, share in shares.items()})
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
    refused("class few has 0 images; it must have at least 4")
    (photos / "few").rmdir()
    (photos / "dogs" / "broken.jpg").write_bytes(b"not an image")
    refused(r"broken\.jpg cannot be read as an image")
    (photos / "dogs" / "broken.jpg").unlink()
    Image.new("L", (7100, 7100)).save(photos / "dogs" / "large.jpg")
    refused(r"large\.jpg cannot be read as an image \(7100 x 7100 pixels are more than 50,000,000\)")
