"""`python -m data` as a user meets it."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def _data(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_sample_says_where_and_how_many(tmp_path: Path) -> None:
    sizes = ["--train", "30", "--clean-train", "5", "--val", "4", "--test", "6", "--image-size", "16", "--seed", "3"]
    done = _data("sample", "--out", str(tmp_path / "s"), *sizes)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 's'}: 30 noisy train, 5 clean train, 4 val, 6 test images.\n"
    lists = {"noisy_train": 30, "clean_train": 5, "clean_val": 4, "clean_test": 6}
    for split, count in lists.items():
        assert len((tmp_path / "s" / f"{split}_key_list.txt").read_text().split("\n")) == count

    again = _data("sample", "--out", str(tmp_path / "s"), *sizes)
    assert again.returncode == 1
    assert again.stderr.startswith("python -m data: ")
    assert "exists already" in again.stderr
    assert again.stderr.count("\n") == 1


def test_import_says_where_and_how_many(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (20 * index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    done = _data("import", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--noise-rate", "0.1")
    assert done.returncode == 0, done.stderr
    assert "12 noisy_train, 2 clean_train, 2 clean_val, 4 clean_test images." in done.stdout

    missing = _data("import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out2"))
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
    assert "nowhere is not a folder" in missing.stderr


def test_show_counts_labels_and_draws_the_noise_matrix(tiny_sample: Path, tmp_path: Path) -> None:
    done = _data("show", str(tiny_sample), "--plot", str(tmp_path / "noise.png"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0].split() == ["class", "noisy_train", "clean_train", "clean_val", "clean_test", "noisy", "=", "clean"]
    assert lines[15].split()[:5] == ["all", "120", "20", "12", "40"]
    assert "carry a noisy label as well." in lines[16]
    with Image.open(tmp_path / "noise.png") as image:
        assert min(image.size) > 400

    wrong = _data("show", str(tiny_sample), "--plot", str(tmp_path / "noise.txt"))
    assert wrong.returncode == 1
    assert "must end in .png, .svg or .pdf" in wrong.stderr
    nothing = _data("show", str(tmp_path / "nowhere"))
    assert nothing.returncode == 1
    assert "does not exist" in nothing.stderr
    assert "Traceback" not in nothing.stderr


def test_partition_tells_who_holds_what(tiny_sample: Path, tmp_path: Path) -> None:
    arguments = ["partition", str(tiny_sample), "--clients", "6", "--partition", "dirichlet"]
    done = _data(*arguments, "--partition-args", "alpha=0.3 min-size=4", "--plot", str(tmp_path / "clients.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 clients hold 120 of 120 images: ")
    with Image.open(tmp_path / "clients.png") as image:
        assert min(image.size) > 400

    for bad, sentence in (
        ("alpha=x", "must be key=value pairs"),
        ("alpha=-1", "'alpha' of dirichlet is -1"),
        ("", "needs the argument 'alpha'"),
    ):
        refused = _data(*arguments, "--partition-args", bad)
        assert refused.returncode == 1
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr
