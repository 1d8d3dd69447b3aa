"""What stands on a page, without a browser: numbers, words, commands, and what is refused."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import runs.report.page
from config.resolve import app_defaults, resolve
from config.run_config import RunConfig
from data.arguments import parse_pairs
from data.release import open_release, training_split
from data.sample import draw_sample
from experiments.plan import Experiment, Plan, Row, save
from runs.entries import Entry
from runs.errors import RunsError
from runs.experiment_file import read_experiment
from runs.report.facts import command_of, differences, environments, of_run, summary
from runs.report.figures import CURVES, charts, confusions_of, curve_of, recall_of
from runs.report.gather import Material, entries_of, gather
from runs.report.holdings import held_by_clients
from runs.report.page import as_json, render, visible, write_page
from runs.run import Run
from runs.table import Line, Section, Table, table_of
from tests.runs.made import line, made, without_record
from tests.runs.odd_experiment import write


def of_label(*runs: Run, label: str = "ce") -> Line:
    return Line(label, runs, {})


def page_of(found: Sequence[Run], baseline: str = "") -> str:
    entries = entries_of(found)
    return render(Material("title", tuple(entries)), table_of(entries, baseline=baseline), "title")


def test_a_curve_is_the_mean_of_the_seeds_that_have_a_round() -> None:
    curve = curve_of(of_label(made([0.5, None, 0.75]), made([0.25, None], seed=2)), "test-accuracy", 100)
    assert curve == {
        "label": "ce", "rounds": [1, 3], "mean": [37.5, 75], "low": [25, 75], "high": [50, 75], "seeds": [2, 1],
    }  # fmt: skip


def test_only_what_runs_have_is_drawn() -> None:
    found = charts(CURVES, [of_label(made([0.5])), of_label(made(lines=[line(1, 0.5, train_loss=2.5)]), label="elr")])
    assert [chart["key"] for chart in found] == ["test-accuracy", "train-loss"]
    assert [curve["label"] for curve in found[1]["curves"]] == ["elr"]
    assert charts(CURVES, [of_label(made(lines=[line(1, None, train_loss=None)]))]) == []


@pytest.mark.parametrize("value", ["0.5", True, None, float("nan"), [0.5], 10**400])
def test_what_is_no_number_is_no_point(value: Any) -> None:
    assert curve_of(of_label(made(lines=[{**line(1, 0.5), "train-loss": value}])), "train-loss") is None


def test_recall_is_that_of_the_last_evaluated_round() -> None:
    first = [
        line(1, 0.5, per_class_recall=[1.0, 0.5, None]),
        line(2, 0.5, per_class_recall=[0.0, 0.5, None]),
        line(3, None),
    ]
    second = [line(1, 0.5, per_class_recall=[0.5, 0.25, None])]
    found = recall_of([of_label(made(lines=first), made(lines=second, seed=2))], ["a", "b"])
    assert found == {"labels": ["ce"], "classes": ["a", "b", "class 2"], "percent": [[25, 37.5, None]], "of": 3}
    for damaged in ([], "x", [0.5, "x"], {"a": 1}, None):
        assert recall_of([of_label(made(lines=[line(1, 0.5, per_class_recall=damaged)]))], []) is None


def test_of_many_classes_the_worst_are_shown() -> None:
    recall = [0.5] * 150
    recall[77] = 0.125
    found = recall_of([of_label(made(lines=[line(1, 0.5, per_class_recall=recall)]))], [])
    assert found is not None
    assert len(found["classes"]) == 40
    assert found["classes"][0] == "class 77"
    assert found["of"] == 150


def test_confusion_is_the_mean_over_seeds() -> None:
    def of(table: Any) -> Run:
        return made(lines=[line(1, 0.5, confusion_matrix=table)])

    found = confusions_of(
        [of_label(of([[3, 1], [0, 4]]), of([[4, 0], [1, 3]])), of_label(made([0.5]), label="elr")], ["a"]
    )
    assert found == {"classes": ["a", "class 1"], "counts": {"ce": [[3.5, 0.5], [0.5, 3.5]]}}
    for damaged in ([], [[1, 2]], [[1, "x"], [0, 1]], [1, 2], "x"):
        assert confusions_of([of_label(of(damaged))], []) is None


def test_a_command_gives_the_runs_own_config() -> None:
    text = "a 'quoted' \"word\" $HOME `x` \\ ! ü"
    changed: dict[str, Any] = {"method": "elr", "drop-last": False, "learning-rate": 1e-05, "seed": 7, "num-clients": 9}
    config = {
        **RunConfig().to_flat(),
        **changed,
        "strategy": "fedavg",
        "data-dir": "/data/$x y",
        "cache-dir": "/elsewhere",
    }
    words = shlex.split(command_of(config))
    assert words[:5] == ["flwr", "run", ".", "--stream", "--federation-config"]
    assert words[5].startswith("num-supernodes=9 ")
    given = {key.replace("_", "-"): value for key, value in parse_pairs(words[7]).items()}
    assert {**resolve(given, app_defaults()).to_flat(), "cache-dir": "/elsewhere"} == config
    assert shlex.split(command_of({**config, "data-dir": text}))[7].count("data-dir") == 1
    assert command_of({}) == ""


def test_a_run_in_words() -> None:
    run = made([0.5, 0.5], name="first", seed=3, record={"how": "stopped", "reason": "No space left."})
    facts = of_run(run)
    assert (facts.name, facts.seed, facts.status, facts.rounds) == ("first", "3", "stopped", "2 of 2 rounds")
    assert (facts.when, facts.reason) == ("2026-01-01 00:00 UTC, 4 s", "No space left.")
    assert of_run(made(lines=[{**line(1, 0.5), "seconds": 7260}])).when.endswith(", 2 h 01 min")
    assert of_run(without_record(run)).when == "4 s"


def test_differences_are_keys_that_are_not_the_same_everywhere() -> None:
    runs = [made(name="a"), made(name="b", seed=2, config={"method": "elr", "drop-last": False, "momentum": 0.5})]
    runs[0].config["momentum"] = 0.5
    found = differences([Section("iid", "", tuple(of_label(run, label=run.name) for run in runs))])
    assert found.keys == ["method", "drop-last"]
    assert found.rows == [("iid", [("a", ["ce", "true"]), ("b", ["elr", "false"])])]
    assert ("momentum", "0.5") in found.same
    assert not {"output-dir", "run-name", "seed"} & {key for key, _ in found.same}


def test_each_environment_is_there_once() -> None:
    machines = [{"cpu": "A", "gpu": ""}, {"cpu": "B", "gpu": "H100"}, {"cpu": "B", "gpu": "H100"}]
    runs = [made(seed=n, record={"machine": one, "versions": {"flwr": "1.42.0"}}) for n, one in enumerate(machines)]
    found = environments([Section("", "", (of_label(*runs),))])
    assert [(one.runs, dict(one.facts)) for one in found] == [
        (2, {"code": "c0de", "cpu": "B", "gpu": "H100", "flwr": "1.42.0"}),
        (1, {"code": "c0de", "cpu": "A", "flwr": "1.42.0"}),
    ]


def test_the_summary_counts_and_names_the_highest() -> None:
    runs = [made([0.5], seed=seed, config={"method": method}) for method in ("ce", "elr") for seed in (1, 2)]
    runs[3].rounds[0]["test-accuracy"] = 0.625
    table = table_of(entries_of(runs))
    said = summary(table.sections, table)
    assert said[0] == "4 runs of 1 round: ce and elr, in 1 setting, with 2 seeds."
    assert said[1].startswith("Highest mean of “last round”: elr, 56.25 ± 8.84 %.")
    other_data = made([0.9], config={"method": "ceiling", "label-noise": "pairflip"})
    entries = [*entries_of(runs), Entry("ceiling", other_data, reference=True)]
    beside = table_of(entries, baseline="ce")
    assert "ceiling" in [line.label for line in beside.sections[0].lines]
    assert summary(beside.sections, beside)[1].startswith("Highest mean of “last round”: elr, 56.25 ± 8.84 %.")
    assert summary(table.sections[:0], Table((), ())) == ["0 runs of 0 rounds: nothing, in 0 settings, with 0 seeds."]


def test_runs_are_named_by_what_differs_and_is_no_setting() -> None:
    def labels(*configs: dict[str, Any]) -> list[str]:
        return [entry.label for entry in entries_of([made(seed=n, config=one) for n, one in enumerate(configs)])]

    assert labels({}, {}) == ["ce", "ce"]
    assert labels({}, {"method": "elr"}) == ["ce", "elr"]
    assert labels({}, {"learning-rate": 0.5}) == ["ce, learning-rate=0.004", "ce, learning-rate=0.5"]
    assert labels({"label-noise": "symmetric", "label-noise-args": "rate=0.4"}, {}) == ["ce", "ce"]
    assert [entry.label for entry in entries_of([Run(Path("/x"), {}, [], None, False)])] == ["unknown method"]


def test_an_experiment_is_read_as_its_plan_says(tmp_path: Path) -> None:
    found = read_experiment(write(tmp_path / "experiment"))
    assert (len(found.entries), len(found.missing), found.baseline) == (31, 1, "ce")
    assert found.entries[0].label == "ce"
    assert found.entries[0].setting.startswith("symmetric")
    assert [name for name, _ in found.failures] == ["row-1-7-2"]
    material = gather([str(tmp_path / "experiment")])
    assert material.entries == found.entries
    assert material.problems[0].endswith(" has not begun.")
    path = tmp_path / "experiment" / "experiment.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for damage in ({"rows": 3}, {"title": None}, {"rows": [{"name": "../x", "label": ""}]}, {"failures": [1]}):
        path.write_text(json.dumps({**values, **damage}), encoding="utf-8")
        with pytest.raises(RunsError, match=r"experiment\.json is damaged; it must be"):
            read_experiment(path.parent)


def test_nothing_to_show_is_a_sentence(tmp_path: Path) -> None:
    save(Experiment(tmp_path, Plan("t", (Row("a", "ce", "", 1, {}, {}, "0" * 8),))))
    with pytest.raises(RunsError, match="none of the rows has begun"):
        gather([str(tmp_path)])
    with pytest.raises(RunsError, match="RUN is 'absent'; it must be the folder of a run"):
        gather(["absent"])


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs.report.page, "find_spec", lambda name: None if name == "plotly" else name)
    with pytest.raises(
        RunsError, match=re.escape('needs plotly, which is not installed; run pip install -e ".[report]"')
    ):
        write_page(["absent"], tmp_path / "page.html")


def test_runs_that_are_not_in_the_table_are_shown_apart() -> None:
    page = page_of([made(), made(name="half", config={"method": "elr", "num-server-rounds": 9}, record={"how": ""})])
    assert "Not in the table: " in page
    assert "2 of 9 rounds" in page
    assert "Not finished: 1 interrupted." in page
    only = page_of([made(record={"how": ""})])
    assert '<table class="sortable">' not in only
    assert '"rounds":[1,2]' in only


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = page_of([made(), made(seed=2), made(config={"method": "elr"})], baseline="ce")
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import""", outside)
    assert page.count("<script") - page.count("<script>") == 1 + page.split("<script>")[1].count("<script ")
    assert "default-src &#39;none&#39;" in page
    assert 'aria-sort="none"' in page
    assert '<th scope="col" class="number picked" aria-sort="none">' in page
    assert page.count('<span class="tag">baseline</span>') == 1


def test_json_ends_no_script() -> None:
    text = "</script><!--<script>&\u2028\u2029'\"衬衫 🧥"
    assert json.loads(as_json({"a": [text]})) == {"a": [text]}
    assert not set(as_json(text)) & set("<>&\u2028\u2029")
    with pytest.raises(ValueError, match="JSON"):
        as_json(float("nan"))


def test_what_cannot_be_seen_is_a_question_mark() -> None:
    assert visible("a\u202eb\n\x1b[31m 衬衫 " + "x" * 500) == "a?b??[31m 衬衫 " + "x" * 500


def test_who_holds_what_is_dealt_again_from_the_same_data_alone(tmp_path: Path) -> None:
    draw_sample(tmp_path / "data", train=60, clean_train=2, val=2, test=2, image_size=16, seed=1)
    release = open_release(tmp_path / "data")
    split = training_split(release, "noisy")
    config: dict[str, Any] = {
        "data-dir": str(tmp_path / "data"),
        "num-clients": 3,
        "partition": "quantity",
        "partition-args": "alpha=1.0",
    }
    found = held_by_clients(made(config=config, record={"data": {"train": split.digest}}))
    assert found is not None
    assert (found["clients"], found["seed"], found["of"]) == (3, 1, len(release.class_names))
    assert sum(found["images"]) == 60
    assert found["classes"] == list(release.class_names)
    assert [sum(row) for row in found["counts"]] == [int((split.labels == label).sum()) for label in range(found["of"])]
    noisy = {**config, "label-noise": "symmetric", "label-noise-args": "rate=0.5"}
    other = held_by_clients(made(config=noisy, record={"data": {"train": split.digest}}))
    assert other is not None
    assert other["images"] == found["images"]
    assert other["counts"] != found["counts"]
    fewer = held_by_clients(made(config={**config, "holdout-fraction": 0.5}, record={"data": {"train": split.digest}}))
    assert fewer is not None
    assert [one - max(1, round(one / 2)) for one in found["images"]] == fewer["images"]
    assert held_by_clients(made(config=config, record={"data": {"train": "0"}})) is None
    assert held_by_clients(without_record(made(config=config))) is None
    assert (
        held_by_clients(made(config={**config, "data-dir": "/absent"}, record={"data": {"train": split.digest}}))
        is None
    )
    wrong = made(config={**config, "partition-args": "alpha=x y"}, record={"data": {"train": split.digest}})
    assert held_by_clients(wrong) is None


def test_entries_keep_their_order_and_their_colours() -> None:
    runs = [made(config={"method": method}) for method in ("elr", "ce", "sce")]
    page = page_of(runs)
    legend = re.findall(r'data-label="([^"]*)"', page)
    assert legend == ["elr", "ce", "sce"]
    assert re.findall(r'class="c(\d) d0"', page)[:3] == ["0", "1", "2"]
    assert [entry.run for entry in entries_of(runs)] == runs
    assert isinstance(entries_of(runs)[0], Entry)
