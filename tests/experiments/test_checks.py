"""A grid is a plan, or all that is wrong with it is said before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.rules import NAME
from data.sample import draw_sample
from experiments.checks import plan_of
from experiments.errors import ExperimentError
from messages.fingerprint import code_fingerprint
from tests.experiments.folders import GRID, write_grid
from tests.odd_values import ODD, is_a_sentence

ROOT = Path(__file__).parents[2]


def faults(folder: Path, **changes: Any) -> list[str]:
    path = write_grid(folder, **changes)
    try:
        plan_of(path, folder / "out")
    except ExperimentError as error:
        found = list(error.args)
    else:
        return []
    assert all(line.startswith(f"{path}: ") and is_a_sentence(line) for line in found), found
    assert not (folder / "out").exists()
    return [line.removeprefix(f"{path}: ") for line in found]


def test_a_plan_has_named_and_marked_rows(tmp_path: Path) -> None:
    plan = plan_of(write_grid(tmp_path, title="Mine", keep="results"), tmp_path / "out")
    assert (plan.title, plan.baseline, plan.keep, plan.code) == ("Mine", "ce", "results", code_fingerprint())
    assert len(plan.rows) == 8
    assert len({row.mark for row in plan.rows}) == len({row.name for row in plan.rows}) == 8
    assert all(NAME.holds(row.name) and row.mark in row.name for row in plan.rows)
    assert not (tmp_path / "out").exists()
    assert plan == plan_of(write_grid(tmp_path, title="Mine", keep="results"), tmp_path / "elsewhere")


def test_the_example_is_a_plan() -> None:
    plan = plan_of(ROOT / "experiments" / "example.toml", Path("/nowhere-yet"))
    assert len(plan.rows) == 12
    assert plan.baseline in {row.label for row in plan.rows}


def test_a_grid_of_settings_alone_is_labelled_by_its_method(tmp_path: Path) -> None:
    axes = {"partition": ["iid", {"name": "uneven", "partition": "dirichlet", "partition-args": "alpha=0.5"}]}
    plan = plan_of(write_grid(tmp_path, axes=axes, base={"method": "elr"}, baseline="elr"), tmp_path / "out")
    assert [(row.label, row.setting, row.seed) for row in plan.rows] == [
        ("elr", "iid", 1), ("elr", "uneven", 1), ("elr", "iid", 2), ("elr", "uneven", 2),
    ]  # fmt: skip


def test_what_all_rows_share_is_said_once(tmp_path: Path) -> None:
    found = faults(tmp_path, base={**GRID["base"], "lr": 1, "batch-size": 0}, federation={"num-supernode": 4})
    assert [line[:60] for line in found] == [
        "run config: there is no key 'lr'; did you mean 'learning-rat",
        "run config: 'batch-size' is 0; it must be a whole number of ",
        "[federation]: there is no key 'num-supernode' (did you mean ",
    ]


def test_a_fault_names_the_value_that_brings_it(tmp_path: Path) -> None:
    axes = {**GRID["axes"], "method": ["ce", "elrr", {"name": "g", "method": "gce", "method-args": "q=5"}]}
    found = faults(tmp_path, axes=axes)
    assert len(found) == 2
    assert found[0].startswith("method 'elrr': run config: 'method' is 'elrr'; it must be one of ")
    assert found[1].startswith("method 'g': run config: 'method-args' is 'q=5'; q of gce is 5, and must be ")


def test_a_fault_of_some_rows_names_the_first(tmp_path: Path) -> None:
    axes = {"method": ["ce", "elr"], "strategy": ["fedavg", "qfedavg"]}
    (one,) = faults(tmp_path, axes=axes, baseline=None)
    assert one.startswith("row 'elr, qfedavg', seed 1 and 1 more: run config: 'strategy' is 'qfedavg', but 'method' is")


def test_the_data_are_looked_at(tmp_path: Path) -> None:
    draw_sample(tmp_path / "data", train=12, clean_train=2, val=2, test=2, image_size=16, seed=1)
    base = {**GRID["base"], "data-dir": str(tmp_path / "data"), "batch-size": 4}
    (one,) = faults(tmp_path, base=base)
    assert one.startswith("run config: 'batch-size' is 4, but the smallest client holds only 3 images")
    assert not faults(tmp_path, base={**base, "batch-size": 2})
    axes = {**GRID["axes"], "clients": [{"federation": {"num-supernodes": count}} for count in (4, 13)]}
    (one,) = faults(tmp_path, base={**base, "batch-size": 2}, axes=axes)
    assert one.startswith("clients '13': run config: 'partition' is 'iid'")
    (one,) = faults(tmp_path, base={**base, "batch-size": 2, "num-clients": 5})
    assert one == "run config: 'num-clients' is 5, but 'num-supernodes' is 4; they must be equal."


def test_classes_of_ones_own_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from methods.ce import CE\nfrom server_app.strategies.fedavg import StreamingFedAvg\nclass Mine(CE): ...\n"
    )
    (tmp_path / "a_file_of_mine.py").write_text(source + "class Ours(StreamingFedAvg): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    method = [
        "ce", "a_file_of_mine:Mine", "a_file_of_mine:Meine",
        {"name": "mixed", "method": "a_file_of_mine:Mine", "method-args": "mixup=-1"},
    ]  # fmt: skip
    axes = {"method": method, "strategy": ["a_file_of_mine:Ours", "a_file_of_mine:Unser"]}
    strategy, name, value = faults(tmp_path, axes=axes, baseline=None)
    assert strategy.startswith("strategy 'a_file_of_mine:Unser': run config: 'strategy' is 'a_file_of_mine:Unser'; ")
    assert name.startswith("method 'a_file_of_mine:Meine': run config: 'method' is 'a_file_of_mine:Meine'; 'Meine' ")
    assert value.startswith("method 'mixed': run config: ")
    axes = {"method": method[:2], "strategy": ["a_file_of_mine:Ours"]}
    assert not faults(tmp_path, axes=axes, baseline=None)


def test_damaged_data_are_a_fault(tmp_path: Path) -> None:
    draw_sample(tmp_path / "data", train=12, clean_train=2, val=2, test=2, image_size=16, seed=1)
    (tmp_path / "data" / "noisy_label_kv.txt").write_text("x\n")
    (one,) = faults(tmp_path, base={**GRID["base"], "data-dir": str(tmp_path / "data")})
    assert "noisy_label_kv.txt" in one


def test_an_unknown_baseline_lists_the_labels(tmp_path: Path) -> None:
    (one,) = faults(tmp_path, baseline="elrr")
    assert one == "'baseline' is 'elrr' (did you mean 'elr'?); it must be one of 'ce', 'elr'."
    assert not faults(tmp_path, exclude=[{"method": "ce", "noise": "pairflip"}])


def test_names_that_meet_are_a_fault(tmp_path: Path) -> None:
    axes = {
        "a": [{"name": "x, y", "momentum": 0.5}, {"name": "x", "momentum": 0.6}],
        "b": [{"name": "z", "local-epochs": 1}, {"name": "y, z", "local-epochs": 2}],
    }
    found = faults(tmp_path, axes=axes, seeds=[1], baseline=None)
    assert found == ["two rows are both called 'x, y, z', seed 1; values need other names."]


def test_the_same_run_twice_is_a_fault(tmp_path: Path) -> None:
    axes = {"method": ["ce", {"name": "cross-entropy", "method": "ce", "strategy": "fedavg"}]}
    found = faults(tmp_path, axes=axes, seeds=[1])
    assert found == ["rows 'ce', seed 1 and 'cross-entropy', seed 1 are the same run; one of them must go or differ."]


def test_a_row_must_be_left(tmp_path: Path) -> None:
    found = faults(tmp_path, axes={"method": ["ce"]}, exclude=[{"method": "ce"}])
    assert found == ["no row is left: [[exclude]] leaves out every combination."]


def test_form_and_rows_are_checked_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, sedes=[1], seeds=None, base={"lr": 1})
    assert len(found) == 3


def test_an_edited_default_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(write_grid(tmp_path), tmp_path / "out")
    edited = tmp_path / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    edited.write_text(text.replace("momentum = 0.9", "momentum = 0.8"), encoding="utf-8")
    monkeypatch.setattr("config.resolve.PYPROJECT", edited)
    after = plan_of(write_grid(tmp_path), tmp_path / "out")
    assert [row.config for row in after.rows] == [row.config for row in before.rows]
    assert not {row.mark for row in after.rows} & {row.mark for row in before.rows}


@given(
    st.dictionaries(
        st.sampled_from(["method", "batch-size", "data-dir", "partition", "pretrained", "label-noise", "preset", "x"]),
        st.sampled_from([one for one in ODD if not isinstance(one, str) or (one.isascii() and len(one) < 500)]),
        max_size=3,
    )
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_values_end_in_sentences(tmp_path: Path, base: dict[str, Any]) -> None:
    small = {key: value for key, value in base.items() if not isinstance(value, int) or abs(value) < 2**63}
    faults(tmp_path, base=small, seeds=[1])
