"""Which folders are taken for one of photos per class, by names alone, and what their classes are called."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from data.errors import DataError
from data.images.loading import load_images
from data.layout.finding import is_class_folder
from data.release import open_release


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.GIF", "a.avif", "a.heic", "2023/12/a.jpg"])
def test_photos_of_every_format_and_not_far_below_make_a_class_folder(tmp_path: Path, name: str) -> None:
    for folder in ("Coat", "Dress"):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.touch()
        for number in range(200):  # what an editor leaves beside a photo
            (path.parent / f"{number}.xmp").touch()
    assert is_class_folder(tmp_path)
    assert [key.decode() for key in open_release(tmp_path).split("noisy_train").keys] == [
        f"images/Coat/{name}",
        f"images/Dress/{name}",
    ]


def test_what_lacks_its_decoder_is_told_from_what_is_no_photo(tmp_path: Path) -> None:
    for folder in ("Coat", "Dress"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.heic").touch()
    script = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from pathlib import Path; from data.release import open_release\n"
        f"try: open_release(Path({str(tmp_path)!r}))\n"
        "except Exception as error: print(error)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=600)
    assert "class 'Coat' has 0 images (left out: 1 .heic, which needs `pip install pillow-heif`;" in done.stdout, done


def test_a_release_is_opened_without_pillow(tiny_sample: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from data.release import open_release;"
        f"open_release(Path({str(tiny_sample)!r})).split('noisy_train'); print('PIL' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("place", ["@eaDir/a.jpg", ".trash/a.jpg", "1/2/3/a.jpg", "a.jpg/notes.txt"])
def test_folders_without_photos_are_called_that(tmp_path: Path, place: str) -> None:
    for folder in ("Coat", "Dress"):
        path = tmp_path / folder / place
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(DataError) as caught:
        open_release(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds only folders (Coat, Dress), and no photo was found in any of them; it must hold one folder"
        " of photos per class, or be a release (see data/README.md)."
    )


def test_classes_that_are_digits_may_have_folders(tmp_path: Path) -> None:
    for folder in ("0/2024", "1/2023"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jpg").touch()
    assert open_release(tmp_path).class_names == ("0", "1")


def test_accents_are_the_same_however_a_machine_writes_them(tmp_path: Path) -> None:
    names = ("Écharpe", "Manteau", "coat")
    for form in ("NFC", "NFD"):
        for name in names:
            path = tmp_path / form / unicodedata.normalize(form, name) / "a.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(path)
        release = open_release(tmp_path / form)
        assert release.class_names == ("Manteau", "coat", "Écharpe")
        assert release.split("noisy_train").labels.tolist() == ([2, 0, 1] if form == "NFD" else [0, 1, 2])
        assert load_images(release, release.split("noisy_train").keys, 8).shape == (3, 8, 8, 3)
    decomposed = tmp_path / "NFC" / unicodedata.normalize("NFD", "Écharpe")
    decomposed.mkdir()
    with pytest.raises(DataError, match=r"holds two folders named 'Écharpe', whose accents are written in two"):
        open_release(tmp_path / "NFC")
