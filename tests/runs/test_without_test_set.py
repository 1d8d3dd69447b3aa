"""Runs without a test set: what is shown instead, that it is named everywhere, and that nothing is mixed with it."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from config.run_config import Value
from runs.entries import Entry
from runs.formats import FORMATS, render
from runs.protocol import differences, why_no_result
from runs.report.facts import summary
from runs.report.figures import CURVES, charts
from runs.report.gather import Material, entries_of
from runs.report.page import render as render_page
from runs.run import Run
from runs.scores import picked_round, scores
from runs.table import Line, table_of
from tests.runs.folders import Said, write_run
from tests.runs.made import line, made

DIGESTS = {"clean_val": "7a1", "train": "77a1"}
OWN: dict[str, Value] = {"eval-split": "own", "holdout-fraction": 0.2, "fraction-evaluate": 0.5}
HELD_OUT = "clients' held-out images (their own labels)"
# By what each is measured on: the config, and the numbers of metrics.jsonl.
KINDS: dict[str, tuple[dict[str, Value], dict[str, list[float]]]] = {
    "clean validation": ({}, {"val-accuracy": [0.5, 0.75]}),
    "clean train": ({"val-split": "clean_train"}, {"val-accuracy": [0.5, 0.75]}),
    HELD_OUT: ({"val-split": "noisy", **OWN}, {"val-accuracy": [0.5, 0.75], "eval-accuracy": [0.5, 0.75]}),
    "clients' slices of clean validation": (
        {"val-split": "none", "fraction-evaluate": 1.0},
        {"eval-accuracy": [0.5, 0.75]},
    ),
    "held-out images (their own labels) of the next round's clients": (
        {"val-split": "none", "holdout-fraction": 0.2},
        {"own-accuracy-before": [0.5, 0.75], "own-accuracy-after": [0.625, 0.8125]},
    ),
    "nothing": ({"val-split": "none"}, {"prediction-changes": [0.5, 0.25]}),
}


def without(
    on: str, seed: int = 1, name: str = "", digests: Mapping[str, str] = DIGESTS, config: dict[str, Value] | None = None
) -> Run:
    """A run of two rounds that is measured on this, and not on clean test."""
    of_kind, numbers = KINDS[on]
    lines = [{**line(n + 1, None), **{key: values[n] for key, values in numbers.items()}} for n in range(2)]
    return made(
        lines=lines,
        name=name or f"run-{seed}",
        seed=seed,
        config={"test-split": "none", **of_kind, **(config or {})},
        record={"data": digests},
    )


@pytest.mark.parametrize("on", KINDS)
def test_accuracies_are_those_of_what_it_is_measured_on(on: str) -> None:
    run = without(on)
    found = scores(run)
    assert run.measure.name == on
    if on == "nothing":
        assert run.accuracies == {}
        assert {"last", "last10", "picked", "best-on-test", "last-loss"}.isdisjoint(found)
        assert found["prediction-changes"] == 25
    else:
        first = 0 if "next round" in on else 1  # a visit measures the model that it receives
        assert run.accuracies == {first: 0.5, first + 1: 0.75}
        assert (found["last"], found["last10"]) == (75, 75)
        assert {"picked", "best-on-test", "macro-f1"}.isdisjoint(found)
    assert why_no_result(run) == ""
    assert picked_round(run) == (2 if "val-accuracy" in KINDS[on][1] else None)


def test_what_clients_hold_out_before_and_after() -> None:
    lines = [
        line(1, 0.5, own_accuracy_before=0.1, own_accuracy_after=0.9),
        line(2, 0.5, own_accuracy_before=0.5, own_accuracy_after=0.625, own_accuracy_before_worst_tenth=0.25),
        line(3, 0.5, prediction_changes=0.125),
    ]
    found = scores(made(lines=lines))
    assert (found["own-before"], found["own-after"], found["own-gain"]) == (50, 62.5, 12.5)
    assert (found["own-worst-tenth"], found["prediction-changes"]) == (25, 12.5)
    assert "own-gain" not in scores(made(lines=[line(1, 0.5, own_accuracy_before=0.5)]))


def test_the_loss_is_of_the_same_images() -> None:
    lines = [{**line(1, None), "val-accuracy": 0.5, "val-loss": 1.5, "eval-loss": 9.0}, line(2, None)]
    assert scores(made(lines=lines, config={"test-split": "none"}))["last-loss"] == 1.5
    visits = [{**line(n, None), "own-accuracy-before": 0.5, "own-loss-before": float(n)} for n in (1, 2)]
    config: dict[str, Value] = {"test-split": "none", "val-split": "none", "holdout-fraction": 0.2}
    assert scores(made(lines=visits, config=config))["last-loss"] == 2


def test_validation_that_clients_hold_out_picks_a_round_whose_test_accuracy_counts() -> None:
    lines = [line(n, test, val_accuracy=val) for n, test, val in [(1, 0.5, 0.2), (2, 0.75, 0.6), (3, 0.25, 0.5)]]
    run = made(lines=lines, config={"val-split": "noisy", **OWN})
    assert run.measure.name == "clean test"
    assert (picked_round(run), scores(run)["picked"]) == (2, 75)


def test_the_round_that_label_wave_picks() -> None:
    """Means of three: 0.5, 0.4, 0.5, of the models of rounds 3, 4 and 5; the last, of all changes 0, comes too late."""
    changes = [None, 0.5, 0.5, 0.5, 0.2, 0.8, 0.5, 0.6, 0.0, 0.0, 0.0]
    lines = [line(n, n / 20, prediction_changes=one) for n, one in enumerate(changes, start=1)]
    config: dict[str, Value] = {"val-split": "label-wave", "inspection": "before", "patience": 2}
    run = made(lines=lines, config=config)
    assert (picked_round(run), scores(run)["picked"]) == (4, 20)
    patient = made(lines=lines, config={**config, "patience": 20})
    assert picked_round(patient) == 10
    table = table_of([Entry("ce", run), Entry("gce", made(lines=[line(1, 0.5, val_accuracy=0.5)]))])
    assert table.columns[2].title == "round picked on validation or by label-wave"
    assert table_of([Entry("ce", run)]).columns[2].title == "round picked by label-wave"
    few = made(lines=[one if n % 2 else {**one, "test-accuracy": None} for n, one in enumerate(lines)], config=config)
    assert picked_round(few) == 4
    assert ("picked" in scores(few)) == (few.accuracies.get(4) is not None)


@pytest.mark.parametrize("on", KINDS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_what_it_is_on(on: str, format: str) -> None:
    text = " ".join(render(table_of([Entry("ce", without(on))]), format).split())
    assert "clean test" not in text
    if on == "nothing":
        assert "no accuracy" in text
    else:
        assert on in text


def test_lines_of_one_setting_that_are_measured_on_different_things_are_apart() -> None:
    tested, validated = made([0.9, 0.9], name="tested"), without("clean validation", name="validated")
    entries = [Entry("ce", tested, setting="x"), Entry("gce", validated, setting="x")]
    table = table_of(entries, baseline="ce")
    assert [(section.title, section.measure.name, section.baseline) for section in table.sections] == [
        ("x", "clean test", "ce"), ("x, accuracy on clean validation", "clean validation", ""),
    ]  # fmt: skip
    (problem,) = table.problems
    assert "no complete run of ce here to compare with; the nearest is tested" in problem
    assert "What accuracies are measured on differs: clean validation in validated, clean test in tested." in problem
    found = list(csv.DictReader(io.StringIO(render(table, "csv"), newline="")))
    assert [row["accuracy on"] for row in found] == ["clean test", "clean validation"]
    assert [row["accuracy, last round, %: mean"] for row in found] == ["90.0", "75.0"]
    assert "accuracies are on what a part's title says" in " ".join(render(table, "text").split())
    said = json.loads(render(table, "json"))
    assert [section["accuracy-on"] for section in said["sections"]] == ["clean test", "clean validation"]


def test_runs_of_one_measure_are_averaged_and_compared() -> None:
    entries = [Entry("ce", without("clean validation", seed)) for seed in (1, 2)]
    entries += [Entry("gce", without("clean validation", seed, config={"method": "gce"})) for seed in (1, 2)]
    table = table_of(entries, baseline="ce")
    (section,) = table.sections
    assert section.title == "labels as released, iid, 10 clients, accuracy on clean validation"
    assert section.lines[1].stats["last"].difference == 0
    assert table.problems == ()


def test_runs_that_were_measured_on_nothing_still_have_a_table() -> None:
    table = table_of([Entry("ce", without("nothing"))])
    assert [column.key for column in table.columns] == ["prediction-changes", "rounds"]
    assert table.problems == ()
    assert "Highest" not in " ".join(summary(table.sections, table))


def test_a_target_is_of_the_same_images() -> None:
    table = table_of([Entry("ce", without("clean validation"))], target=0.7)
    assert table.sections[0].lines[0].stats["rounds-to-target"].mean == 2


def test_why_they_cannot_be_compared() -> None:
    run = without(HELD_OUT)
    assert differences(run, without(HELD_OUT, name="other")) == []
    fewer = without(HELD_OUT, name="b", config={"fraction-evaluate": 0.25})
    assert differences(run, fewer) == ["'fraction-evaluate' differs: 0.5 in run-1, 0.25 in b."]
    less = without(HELD_OUT, name="b", config={"holdout-fraction": 0.1})
    assert differences(run, less) == ["The share that clients hold out differs: 0.2 in run-1, 0.1 in b."]
    label_wave = without(HELD_OUT, name="b", config={"val-split": "label-wave"})
    assert differences(run, label_wave) == ["What picks the best round differs: noisy in run-1, label-wave in b."]
    other = without("clean validation", name="b", digests={**DIGESTS, "clean_val": "else"})
    assert differences(without("clean validation"), other) == ["The clean val list differs: 7a1 in run-1, else in b."]


def test_what_clients_hold_out_is_a_setting() -> None:
    table = table_of([Entry("ce", made(config={"holdout-fraction": 0.25}))])
    assert table.sections[0].title == "labels as released, iid, 25 % held out, 10 clients"


def test_charts_say_on_which_images() -> None:
    def titles(run: Run) -> list[str]:
        return [chart["title"] for chart in charts(CURVES, [Line("ce", (run,), {})])]

    assert titles(without("clean validation")) == ["Accuracy on clean validation"]
    assert titles(without("clean train")) == ["Accuracy on clean train"]
    assert titles(without(HELD_OUT)) == [f"Accuracy on {HELD_OUT}"]  # once, although two keys have it
    assert titles(without(HELD_OUT, config={"val-split": "none"})) == [f"Accuracy on {HELD_OUT}"]
    assert titles(without("clients' slices of clean validation")) == ["Accuracy on clients' slices of clean validation"]
    run = without("held-out images (their own labels) of the next round's clients")
    own = [chart["title"] for chart in charts(CURVES, [Line("ce", (run,), {})])]
    assert [title.rsplit(", ", 1)[1] for title in own] == ["before they train", "after they train"]
    both = [
        Line("a", (without("clean validation"), made([0.5], name="t")), {}),
        Line("b", (without("clean train"),), {}),
    ]
    drawn = {chart["title"]: [curve["label"] for curve in chart["curves"]] for chart in charts(CURVES, both)}
    assert drawn == {
        "Accuracy on clean test": ["a"], "Accuracy on clean validation": ["a"], "Accuracy on clean train": ["b"],
    }  # fmt: skip


def test_the_page_names_it() -> None:
    runs = [without("clean validation", name=method, config={"method": method}) for method in ("ce", "elr")]
    entries = entries_of(runs)
    table = table_of(entries)
    page = render_page(Material("title", tuple(entries)), table, "title")
    shown = page[: page.index('<script type="application/json"')]
    assert "accuracies are on clean validation" in shown
    assert "Highest mean of “last round” on clean validation: " in shown
    assert "clean test" not in shown.split('<section id="confusion"')[0]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A run with a test set, and one for each other measure."""
    found = [write_run(tmp_path / "tested", [0.25, 0.5], {}, {"how": "finished", "clients": 10})]
    for number, (of_kind, numbers) in enumerate(KINDS.values()):
        config: dict[str, Value] = {"test-split": "none", **of_kind}
        folder = write_run(tmp_path / f"kind-{number}", [None, None], config, {"how": "finished", "clients": 10})
        lines: list[dict[str, Any]] = [
            {**line(n + 1, None), **{key: values[n] for key, values in numbers.items()}} for n in range(2)
        ]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
        found.append(folder)
    return found


def test_the_list_has_a_column_for_it_only_if_there_is_need(
    folders: list[Path], tmp_path: Path, runs: Callable[..., Said]
) -> None:
    header, *lines = runs("list", tmp_path, "--sort", "accuracy").out.splitlines()
    assert "accuracy on" in header
    rows = {row.split()[2]: " ".join(row.split()) for row in lines}
    assert "75.0 % clean val" in rows["kind-0"]
    assert "75.0 % held-out images" in rows["kind-2"]
    assert "50.0 % clean test" in rows["tested"]
    assert "- nothing" in rows["kind-5"]
    order = [one["name"] for one in runs("list", tmp_path, "--sort", "accuracy", "--json").json]
    assert (order[0], order[-1]) == ("kind-5", "tested")  # without any first; those of one measure beside each other
    said = {one["name"]: (one["accuracy-on"], one["accuracy"]) for one in runs("list", tmp_path, "--json").json}
    assert said["kind-2"] == (HELD_OUT, 0.75)
    assert said["kind-5"] == ("nothing", None)
    write_run(tmp_path / "plain" / "run", [0.5])
    assert "accuracy on" not in runs("list", tmp_path / "plain").out


def test_show_says_it_in_words(folders: list[Path], runs: Callable[..., Said]) -> None:
    said = [" ".join(runs("show", folder).out.split()) for folder in folders]
    assert "accuracy 50.0 % round 2, the last one evaluated" in said[0]
    assert (
        "accuracy on clean validation, as the run has no test set 75.0 % round 2, the last one evaluated"
        " 75.0 % round 2, its best: picked on the same images"
    ) in said[1]
    assert f"accuracy on {HELD_OUT}, as the run has no test set 75.0 %" in said[3]
    assert "75.0 % round 1, the last one evaluated" in said[5]
    assert "accuracy none: the run had no test set, no validation and no evaluation by clients" in said[6]
    assert runs("show", folders[1], "--json").json["scores"]["picked-round"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [([None, 0.5, 0.5, 0.25], "label-wave picks round 3"), ([None], "label-wave has picked no round yet")],
)
def test_show_names_the_round_that_label_wave_picks(
    changes: list[float | None], said: str, tmp_path: Path, runs: Callable[..., Said]
) -> None:
    """Although nothing has measured its accuracy."""
    config: dict[str, Value] = {"test-split": "none", "val-split": "label-wave", "inspection": "before"}
    folder = write_run(tmp_path / "run", [None] * len(changes), config)
    lines = [line(number, None, prediction_changes=one) for number, one in enumerate(changes, start=1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    text = " ".join(runs("show", folder).out.split())
    assert f"accuracy none: the run had neither a test set nor evaluation by clients {said}" in text


def test_comparing_names_them_and_draws_them(folders: list[Path], tmp_path: Path, runs: Callable[..., Said]) -> None:
    said = runs("compare", *folders, "--plot", tmp_path / "curves.png")
    assert said.code == 0, said.err
    assert f"- What accuracies are measured on differs: clean test in tested, {HELD_OUT} in kind-2." in said.out
    assert (tmp_path / "curves.png").is_file()
    header, *rows = said.out.split("accuracy  ", 1)[1].splitlines()
    assert header.split()[0] == "on"
    assert any("clean validation" in row and "75.0 %" in row for row in rows)
    found = runs("compare", *folders[1:3], "--json").json
    assert [one["accuracy-on"] for one in found["runs"]] == ["clean validation", "clean train"]
    assert [one["scores"]["best-on-test"] for one in found["runs"]] == [None, None]


def test_a_damaged_config_takes_nothing_for_clean_test(folders: list[Path], runs: Callable[..., Said]) -> None:
    (folders[1] / "config.toml").write_text(tomli_w.dumps({"seed": 1}), encoding="utf-8")
    assert runs("show", folders[1], "--json").json["accuracy"] is None
