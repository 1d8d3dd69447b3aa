"""The GPU's benchmark keeps what it found whatever happens, and its steps do something without a GPU."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import equality, speed
from benchmarks.gpu.__main__ import run_step, table
from benchmarks.gpu.step import Scale, computes
from benchmarks.tools.our_loop import our_visit

CPU = torch.device("cpu")
SMALL = Scale("resnet18", 16, 2, steps=1, repeats=1, at_once=(1,), images=2, photos=2)


def test_what_a_killed_step_found_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "step.py"
    program.write_text(
        "from benchmarks.gpu.step import emit\nemit('first', 1.5, 's', ok=True)\nprint('by the way')\n"
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
