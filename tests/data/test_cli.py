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
