"""Whole runs whose classes have odd names, or are many."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import plots
from data.confusion import MANY_CLASSES
from server_app.callbacks import pictures
from tests.fakes import rounds_of, run_in_process

NAMES = [
    "$", "$x_{1", r"\frac{", "a_b^c", r"\$", "%s {0}", "x" * 200, "שלום", "مرحبا", "😀", "日本語", "<b>", "#", "*",
]  # fmt: skip


def release(sample: Path, folder: Path, names: list[str]) -> Path:
    shutil.copytree(sample, folder)
    (folder / "category_names_eng.txt").write_text("\n".join(names), encoding="utf-8")
    return folder


def test_odd_names_end_no_run(tiny_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = release(tiny_sample, tmp_path / "data", NAMES)
    with caplog.at_level("INFO", "flwr"):
        run_dir = run_in_process(
            tmp_path, data_dir=str(data), model="cnn", cache_gib=0.0, num_server_rounds=1, pictures=True
        )
    assert len(rounds_of(run_dir)) == 1
    assert not [message for message in caplog.messages if "cannot be written" in message]
    assert all(line.isprintable() for message in caplog.messages for line in message.splitlines())
    with Image.open(run_dir / "confusion.png") as image:
        assert min(image.size) > 400


def test_many_classes_leave_lines_and_pictures_small(tiny_sample: Path, tmp_path: Path) -> None:
    data = release(tiny_sample, tmp_path / "data", [f"class {number}" for number in range(1000)])
    run_dir = run_in_process(
        tmp_path, data_dir=str(data), model="cnn", cache_gib=0.0, num_server_rounds=2, pictures=True
    )
    for entry in rounds_of(run_dir):
        assert "confusion-matrix" not in entry
        assert len(json.dumps(entry)) < 20_000
    assert max((run_dir / name).stat().st_size for name in ("confusion.png", "confusion.npz")) < 500_000
    with np.load(run_dir / "confusion.npz") as table:
        confusion = table["confusion"]
        assert table["round"] == 2
    assert confusion.shape == (1000, 1000)
    assert np.trace(confusion) / 40 == pytest.approx(rounds_of(run_dir)[-1]["test-accuracy"])


def test_up_to_that_many_classes_the_whole_table_is_in_every_line(tiny_sample: Path, tmp_path: Path) -> None:
    data = release(tiny_sample, tmp_path / "data", [f"class {number}" for number in range(MANY_CLASSES)])
    run_dir = run_in_process(tmp_path, data_dir=str(data), model="cnn", cache_gib=0.0, num_server_rounds=1)
    assert np.array(rounds_of(run_dir)[0]["confusion-matrix"]).shape == (MANY_CLASSES, MANY_CLASSES)
    assert not (run_dir / "confusion.npz").exists()


def test_a_picture_that_cannot_be_drawn_is_one_warning(
    tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("\n$x\n^\nParseException: Expected '}'")

    monkeypatch.setattr(plots, "draw_matrix", fails)
    monkeypatch.setattr(pictures.Pictures, "SECONDS", -1.0)
    with caplog.at_level("WARNING", "flwr"):
        run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), model="cnn", cache_gib=0.0, num_server_rounds=3)
    assert len(rounds_of(run_dir)) == 3
    [told] = [message for message in caplog.messages if "accuracy.png" in message]
    assert told == (
        f"{run_dir / 'accuracy.png'} cannot be written (ValueError: $x | ^ | ParseException: Expected '}}'); the run"
        " does without it."
    )
