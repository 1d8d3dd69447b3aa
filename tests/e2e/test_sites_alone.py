"""Three sites with nothing but folders of photos, and a server without an image: label-wave ends the run, each site
gets its label report, and a run that is killed and resumed ends with the bits of an undisturbed one in one process.
"""

import csv
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from runs.__main__ import app
from server_app.run_lock import FILE as LOCK
from tests.e2e.superlink import SuperLink, flower_env, pairs, wait_for
from tests.fakes import outcome_of, rounds_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SITES, CLASSES, PHOTOS = 3, ("coat", "dress", "scarf"), 20  # photos of each class, at each site
SETTINGS: dict[str, Any] = {
    "model": "cnn", "image_size": 16, "batch_size": 8, "num_server_rounds": 40, "fraction_train": 1.0,
    "precision": "fp32", "learning_rate": 0.02, "strategy_args": f"min-available-nodes={SITES}", "method": "elr",
    "test_split": "none", "val_split": "label-wave", "inspection": "both", "holdout_fraction": 0.1, "patience": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of photos, one for each class; every fifth photo lies in the wrong one."""
    root = tmp_path_factory.mktemp("sites")
    random = np.random.default_rng(5)
    found = []
    for site in range(SITES):
        photos = root / f"photos {site}"
        for label, name in enumerate(CLASSES):
            (photos / name).mkdir(parents=True)
            for number in range(PHOTOS):
                shown = (label + (number % 5 == 0)) % len(CLASSES)
                pixels = random.integers(0, 100, (24, 24, 3), np.uint8)
                pixels[..., shown] += 100
                Image.fromarray(pixels).save(photos / name / f"{number:02}.png")
        found.append(photos)
    return found


def test_sites_without_clean_images_train_stop_and_get_their_reports(
    sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in this process
    real = SuperLink(tmp_path / "real", tmp_path, simulation=False)
    try:
        for number, site in enumerate(sites):
            real.start_node(f"data-dir='{site}' state-dir='{tmp_path}/state-{number}'")
        killed = tmp_path / "killed"
        config = pairs(**SETTINGS, output_dir=tmp_path, run_name="killed", resume="auto")
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(real.run, ROOT, "-c", config)
            wait_for(lambda: (killed / "metrics.jsonl").is_file() and len(rounds_of(killed)) >= 2, 600)
            os.kill(json.loads((killed / LOCK).read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
            assert first.result().status != "finished:completed"
        resumed = real.run(ROOT, "-c", config)
        assert resumed.status == "finished:completed", resumed.log
    finally:
        real.stop()
    assert "Traceback" not in resumed.log
    assert "('patience')" in resumed.log
    assert not list((tmp_path / "real" / "cache").rglob("sample-*"))  # the server has no data, and drew none
    kept = [_folders(tmp_path / f"state-{number}") for number in range(SITES)]
    # The same sites, asked in this process; what they keep lies beside what they keep of the other run.
    nodes = [{"data-dir": str(site), "state-dir": f"{tmp_path}/state-{number}"} for number, site in enumerate(sites)]
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: True)
    rounds = rounds_of(run_in_process(tmp_path, nodes=nodes, run_name="whole", **SETTINGS))
    assert 2 < len(rounds) < SETTINGS["num_server_rounds"]
    assert all(line["test-accuracy"] is None for line in rounds)
    assert outcome_of(tmp_path / "killed") == outcome_of(tmp_path / "whole")
    best = [(tmp_path / name / "checkpoints" / "best.safetensors") for name in ("whole", "killed")]
    assert _arrays(best[0]) == _arrays(best[1])
    for number in range(SITES):
        assert len(_folders(tmp_path / f"state-{number}")) == 2  # of both runs
        (state,) = kept[number]
        _has_its_report(tmp_path, number, state)
    _every_command_works(tmp_path, sites[0])


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def _has_its_report(tmp_path: Path, number: int, state: Path) -> None:
    """The site's own folders are all that its report is made of."""
    out = tmp_path / f"report-{number}"
    _python("-m", "runs", "labels", state, "--out", out, home=tmp_path / "site")
    with (out / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0.85 * len(CLASSES) * PHOTOS < len(rows) < len(CLASSES) * PHOTOS  # all but those that are held out
    assert len(list((out / "sheets").iterdir())) == len(CLASSES)
    moved = [row for row in rows if row["suggested"] != "keep" and int(row["rank"]) <= len(rows) // 5]
    assert len(moved) > 5  # photos that lie in the wrong folder


def _every_command_works(tmp_path: Path, photos: Path) -> None:
    """On the runs of a server that has no image."""
    run, out = tmp_path / "whole", tmp_path / "out"
    out.mkdir()
    for words in (
        ["list", tmp_path], ["show", run, "--json"], ["compare", run, tmp_path / "killed"],
        ["report", run, "--out", out / "page.html"], ["predict", run, photos, "--model", "best", "--csv"],
        ["evaluate", run, "--data", photos, "--worst", out / "worst.png"],
        ["export", run, "--torch-export", out / "model.pt2", "--hub", out / "hub"],
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, (words, done.output, done.exception)


def _arrays(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(path).items()}


def _python(*arguments: object, home: Path) -> None:
    env = {**os.environ, **flower_env(home)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
