"""The GPU's benchmark keeps what it found whatever happens, and its steps do something without a GPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import equality, speed
from benchmarks.gpu.__main__ import NEEDS_GPU, ROOT, STEPS, run_step, table
from benchmarks.gpu.step import Scale, computes, emit
from benchmarks.tools.our_loop import our_visit

CPU = torch.device("cpu")
SMALL = Scale("resnet18", 16, 2, steps=1, repeats=1, at_once=(1,), images=2, photos=2)


def test_what_a_killed_step_found_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "step.py"
    emit("first", 1.5, "s", ok=True)
    line = capsys.readouterr().out.rstrip("\n")
    program.write_text(
        f"print({line!r})\nprint('by the way')\n"  # without PyTorch, which may take longer to import than the limit
        "import subprocess, sys; sys.stdout.flush()\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n",  # which has the same stdout
        encoding="utf-8",
    )
    command = ["timeit", "-n1", "-r1", f"import runpy; runpy.run_path({str(program)!r})"]
    found = run_step("slow", command, limit=15, out=tmp_path)
    assert [(one["what"], one["value"], one["ok"]) for one in found] == [
        ("first", 1.5, True), ("slow: exit status", -9, False),
    ]  # fmt: skip
    lines = (tmp_path / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == found
    assert (tmp_path / "slow.log").read_text(encoding="utf-8") == "by the way\n"
    assert table(found, "title").row_count == 2


def test_a_visit_equals_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    equality.compare_precisions("cnn", CPU)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 2 * len(computes(CPU))
    assert all(one["ok"] for one in found)
    assert found[0]["value"] == 0  # fp32, bit for bit


def test_a_wrong_step_is_seen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "RATE", 0.02)  # of the plain loop; settings() reads it as well
    monkeypatch.setattr(equality, "settings", lambda settings=equality.settings: settings(learning_rate=0.01))
    equality.compare_precisions("cnn", CPU)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not found[0]["ok"]


def test_contenders_take_the_same_steps() -> None:
    compute = computes(CPU)["fp32"]
    visit = our_visit(speed.config_of(SMALL), compute, SMALL.steps)
    contenders = {"bare": speed.bare_loop(SMALL, compute), "visit": visit}
    assert all(rate > 0 for rate in speed.rates(SMALL, contenders, CPU).values())


def test_tests_with_a_cuda_side_are_where_their_step_looks() -> None:
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "\n@pytest.mark.gpu" in path.read_text("utf-8")]
    assert marked == [ROOT / word for word in STEPS["tests"][0] if word.startswith("tests/")]


@pytest.mark.parametrize("name", sorted(NEEDS_GPU))
def test_a_step_that_needs_a_gpu_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"benchmarks.gpu.{name}").main()
    assert json.loads(capsys.readouterr().out)["value"] == "needs a GPU"


@pytest.mark.e2e
def test_every_step_runs_without_a_gpu(tmp_path: Path) -> None:
    """So that a session with a GPU, which may be short, meets no mistake that a CPU could have shown."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--minutes", "60", "--out", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text("utf-8").splitlines()]
    ended = {one["step"]: one["ok"] for one in found if one["what"].endswith("exit status")}
    assert ended == dict.fromkeys(STEPS.keys() - NEEDS_GPU, True), [
        (tmp_path / f"{name}.log").read_text("utf-8") for name in ended
    ]
    assert not [one for one in found if one["ok"] is False]
    assert done.returncode == 0, done.stdout + done.stderr
