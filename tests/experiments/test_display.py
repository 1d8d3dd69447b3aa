"""What people see while rows run."""

import io
import json
from pathlib import Path

import pytest
import tomli_w
from rich.console import Console

from config.run_config import RunConfig
from experiments.display import Counts, Progress, Screen, drawn, seconds_left, summary
from experiments.plan import Row


def row(label: str = "elr", setting: str = "symmetric 0.4", seed: int = 2) -> Row:
    return Row("name", label, setting, seed, {}, {}, "0" * 8)


def progress(folder: Path, rounds: int, row: Row | None = None, asked: int = 14) -> Progress:
    """With rounds of 10 s whose accuracy grows by 5 %; every second one is evaluated."""
    lines = [
        {"round": n, "test-accuracy": n / 20 if n % 2 else None, "test-loss": None, "seconds": 10.0}
        for n in range(1, rounds + 1)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Progress(row or globals()["row"](), folder, asked)


def text_of(running: list[Progress], counts: Counts, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(drawn(running, counts, width))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_running_row_is_a_line(tmp_path: Path) -> None:
    lines = text_of([progress(tmp_path, 4)], Counts(done=1, waiting=3, failed=1))
    assert lines == [
        "elr, symmetric 0.4, seed 2  round 4/14  15.0 %  10.0 s a round  100 s left",
        "1 done, 1 running, 3 waiting, 1 failed, about 9 min left",
    ]


def test_an_accuracy_that_is_not_on_clean_test_says_so(tmp_path: Path) -> None:
    config = {**RunConfig().to_flat(), "test-split": "none", "val-split": "noisy"}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    row = progress(tmp_path, 0)
    lines = [{"round": 1, "test-accuracy": None, "val-accuracy": 0.25, "seconds": 10.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    row.look()
    assert "round 1/14  25.0 % on held-out images  10.0 s a round" in text_of([row], Counts())[0]


def test_a_row_without_rounds_is_starting(tmp_path: Path) -> None:
    assert text_of([progress(tmp_path / "new", 0)], Counts(waiting=1)) == [
        "elr, symmetric 0.4, seed 2  round 0/14    starting",
        "0 done, 1 running, 1 waiting",
    ]


def test_nothing_runs() -> None:
    assert text_of([], Counts(done=2)) == ["2 done, 0 running, 0 waiting"]


@pytest.mark.parametrize("label", ["[bold]x[/bold]", "[/]", "a\nb\x1b[31m", "手套" * 30, "x" * 300])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_other_peoples_text_is_shown_as_it_is_on_one_line(tmp_path: Path, label: str, width: int) -> None:
    lines = text_of([progress(tmp_path, 4, row(label))], Counts(), width)
    assert len(lines) == 2
    assert lines[0].startswith(label[:2].replace("\n", "?"))
    assert lines[0].endswith("10.0 s a round  100 s left")


def test_what_is_left_goes_by_rows_that_ended(tmp_path: Path) -> None:
    running = [progress(tmp_path, 4)]
    counts = Counts(waiting=3, at_once=2, took=[100.0, 300.0])
    assert seconds_left(running, counts) == (100 + 3 * 200) / 2
    assert seconds_left(running, Counts(waiting=0, at_once=2)) == 100
    assert seconds_left([], Counts(waiting=3)) is None


def test_rows_that_wait_take_as_long_to_start_as_those_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = progress(tmp_path, 4)
    monkeypatch.setattr("time.monotonic", lambda: one.began + 50.0)
    progress(tmp_path, 6)
    one.look()  # two rounds of 10 s since the start, which was 50 s ago
    monkeypatch.undo()
    assert one.starting == pytest.approx(30)
    assert seconds_left([one], Counts(waiting=1)) == pytest.approx(8 * 10 + 30 + 14 * 10)
    progress(tmp_path, 7)
    one.look()
    assert one.starting == pytest.approx(30)


def test_why_the_next_one_waits_is_said(tmp_path: Path) -> None:
    assert summary([], Counts(waiting=1, wait="the next one waits")).endswith("1 waiting; the next one waits")


def test_rounds_of_earlier_starts_are_told_apart(tmp_path: Path) -> None:
    one = progress(tmp_path, 4)
    assert not one.has_trained
    progress(tmp_path, 5)
    one.look()
    assert one.has_trained
    assert one.done == 5


def test_without_a_terminal_only_events_are_printed(tmp_path: Path) -> None:
    out = io.StringIO()
    with Screen(Counts(), Console(file=out)) as screen:
        screen.show([progress(tmp_path, 4)])
        screen.say("[b]elr[/b], seed 1: done\nand more " + "x" * 200)
    (line,) = out.getvalue().splitlines()
    assert line[8:].startswith("  [b]elr[/b], seed 1: done | and more x")
