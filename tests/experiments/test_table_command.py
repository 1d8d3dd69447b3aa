"""`python -m experiments table`: what it prints of an experiment's folder, whatever is done of it."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import experiments.__main__
from experiments.plan import Experiment, Plan, Row, save
from tests.odd_values import is_a_sentence
from tests.runs.made import line, made

ROWS = [("ce", 1, 0.50), ("gce", 1, 0.55), ("ce", 2, 0.52), ("gce", 2, 0.58)]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Four rows, of which none is there."""
    rows = [
        Row(f"{label}-{seed}", label, "40 %", seed, {"seed": seed}, {}, "0" * 8, trials=1) for label, seed, _ in ROWS
    ]
    found = Experiment(tmp_path / "first", Plan("first", tuple(rows), baseline="ce"))
    found.folder.mkdir()
    save(found)
    return found


def leave(experiment: Experiment, *names: str, record: dict[str, Any] | None = None, lines: int = 4) -> None:
    """The folders of these rows."""
    for label, seed, accuracy in ROWS:
        if f"{label}-{seed}" in names:
            config: dict[str, Any] = {"method": label, "num-server-rounds": 4}
            rounds = [line(n + 1, accuracy, val_accuracy=accuracy) for n in range(lines)]
            run = made(name=f"{label}-{seed}", seed=seed, lines=rounds, config=config, record=record or {})
            write(run, experiment.folder / "runs" / run.name)


def write(run: Any, folder: Path) -> None:
    from server_app.run_record import write_record

    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(tomli_w.dumps(run.config), encoding="utf-8")
    text = "".join(json.dumps(entry) + "\n" for entry in run.rounds)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    write_record(folder, run.record)


@pytest.fixture
def table(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command: exit code, what it printed, and its lines on standard error."""

    def called(*words: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["x", "table", str(experiment.folder), *words])
        with pytest.raises(SystemExit) as end:
            experiments.__main__.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err.splitlines()

    return called


def test_all_rows(experiment: Experiment, table: Any) -> None:
    leave(experiment, "ce-1", "gce-1", "ce-2", "gce-2")
    code, out, err = table()
    assert (code, err) == (0, [])
    assert "40 %\n" in out
    assert "56.50 ± 2.12" in out
    assert "+5.50 ± 6.35" in out  # 12.7062 times 0.5
    assert "Tuning: 1 setting tried for each line." in out
    assert "Not there yet" not in out


def test_rows_that_are_not_done_are_notes(experiment: Experiment, table: Any) -> None:
    leave(experiment, "ce-1", "gce-1")
    leave(experiment, "ce-2", record={"how": ""}, lines=2)
    experiment.failures["gce-2"] = "No client answered."
    save(experiment)
    code, out, err = table("--format", "json")
    found = json.loads(out)
    assert (code, err) == (0, [])
    assert found["notes"] == [
        "Not there yet: 1 of 4 rows: gce, 40 %, seed 2.",
        "Failed: gce, 40 %, seed 2: No client answered.",
    ]
    assert "Left out: ce, seed 2 (ce-2), interrupted after round 2 of 4." in found["sections"][0]["notes"]
    assert found["sections"][0]["lines"][1]["stats"]["last"]["difference"] == pytest.approx(5)


def test_a_row_that_failed_is_said_once(experiment: Experiment, table: Any) -> None:
    leave(experiment, "ce-1", record={"how": "stopped", "reason": "No client answered."}, lines=2)
    leave(experiment, "ce-2", record={"how": ""}, lines=2)
    experiment.failures = {"ce-1": "No client answered.", "ce-2": "it was started 3 times and cut off each time"}
    save(experiment)
    found = json.loads(table("--format", "json")[1])
    said = [*found["sections"][0]["notes"], *found["notes"]]
    assert [note for note in said if "ce" in note and "Not there" not in note] == [
        "Left out: ce, seed 1 (ce-1), stopped after round 2 of 4: No client answered.",
        "Left out: ce, seed 2 (ce-2), interrupted after round 2 of 4.",
        "Failed: ce, 40 %, seed 2: it was started 3 times and cut off each time.",
    ]


def test_nothing_is_there(table: Any) -> None:
    code, out, err = table()
    assert (code, err) == (0, [])
    assert "Not there yet: 4 of 4 rows: ce, 40 %, seed 1; gce, 40 %, seed 1; ce, 40 %, seed 2 and 1 more." in " ".join(
        out.split()
    )


def test_what_is_not_comparable_is_a_sentence_and_exit_code_1(experiment: Experiment, table: Any) -> None:
    leave(experiment, "ce-1", "ce-2")
    leave(experiment, "gce-1", "gce-2", record={"code": ["n3w"]})
    code, out, err = table("--columns", "last, picked")
    assert code == 1
    assert err == ["gce: Not compared with ce. The code differs: n3w in gce-1, c0de in ce-1."]
    assert all(map(is_a_sentence, err))
    assert "Not compared with ce." in out


def test_columns_baseline_and_target(experiment: Experiment, table: Any) -> None:
    leave(experiment, "ce-1", "gce-1", "ce-2", "gce-2")
    _, out, _ = table("--columns", "last,images", "--baseline", "gce", "--target", "0.51", "--format", "csv")
    first, second = csv.DictReader(io.StringIO(out, newline=""))
    assert float(first["accuracy on clean test, last round, %: difference"]) == pytest.approx(-5.5)
    assert second["images seen in training: mean"] == "400.0"
    assert first["note"] == "rounds to 51 %: 1 of 2 reached it."


def test_a_file_is_written_instead(experiment: Experiment, table: Any, tmp_path: Path) -> None:
    leave(experiment, "ce-1")
    code, out, err = table("--format", "markdown", "--out", str(tmp_path / "table.md"))
    assert (code, out, err) == (0, "", [])
    assert "| ce | 1 | 50.00 |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_baseline_that_is_not_there_yet_is_a_note(experiment: Experiment, table: Any) -> None:
    leave(experiment, "gce-1")
    code, out, err = table()
    assert (code, err) == (0, [])
    assert "No row of ce is there yet, so that nothing is compared with it." in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "html"), "there is no format 'html'"),
        (("--columns", "lats"), "there is no column 'lats' (did you mean 'last'?)"),
        (("--baseline", "x"), "there is no line 'x'"),
        (("--target", "nan"), "the target is nan; it must be"),
        (("--out", "/nowhere/x"), "--out is /nowhere/x"),
    ],
)
def test_refusals(experiment: Experiment, table: Any, words: tuple[str, ...], sentence: str) -> None:
    leave(experiment, "ce-1")
    code, out, err = table(*words)
    assert (code, out, len(err)) == (1, "", 1)
    assert err[0].startswith(f"python -m experiments: {sentence}")
    assert is_a_sentence(err[0])
