"""What a grid file says: rows in order, or a sentence for each thing that is wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.grid import Combination, combinations, doubly_set
from experiments.grid_file import KNOWN, read_grid
from tests.experiments.folders import GRID, write_grid
from tests.odd_values import is_a_sentence

ROOT = Path(__file__).parents[2]


def rows(path: Path) -> list[Combination]:
    grid, problems = read_grid(path)
    assert not problems
    return list(combinations(grid))


def problems(folder: Path, **changes: Any) -> list[str]:
    path = write_grid(folder, **changes)
    found = read_grid(path)[1]
    assert all(problem.startswith(f"{path}: ") and is_a_sentence(problem) for problem in found), found
    return [problem.removeprefix(f"{path}: ") for problem in found]


def test_rows_come_seed_by_seed_with_labels_and_settings(tmp_path: Path) -> None:
    found = rows(write_grid(tmp_path))
    assert [(one.row.seed, one.row.label, one.row.setting) for one in found] == [
        (1, "ce", "symmetric"), (1, "ce", "pairflip"), (1, "elr", "symmetric"), (1, "elr", "pairflip"),
        (2, "ce", "symmetric"), (2, "ce", "pairflip"), (2, "elr", "symmetric"), (2, "elr", "pairflip"),
    ]  # fmt: skip
    assert found[3].row.config == {
        "model": "cnn", "image-size": 16, "num-server-rounds": 3, "seed": 1, "method": "elr",
        "label-noise": "pairflip", "label-noise-args": "rate=0.3",
    }  # fmt: skip
    assert found[3].row.federation == GRID["federation"]
    assert found[3].chosen == {"method": "elr", "noise": "pairflip"}


def test_an_axis_wins_over_base_and_a_value_brings_what_it_needs(tmp_path: Path) -> None:
    axes = {
        "method": ["ce", {"name": "tuned", "method": "gce", "num-server-rounds": 5, "trials": 3, "reference": True}],
        "clients": [{"name": "many", "federation": {"num-supernodes": 9}}, {"federation": {"num-supernodes": 2}}],
    }
    plain, tuned = (rows(write_grid(tmp_path, axes=axes, seeds=[1]))[number].row for number in (1, 2))
    assert (tuned.label, tuned.setting, tuned.trials, tuned.reference) == ("tuned", "many", 3, True)
    assert (tuned.config["num-server-rounds"], tuned.federation["num-supernodes"]) == (5, 9)
    assert (plain.label, plain.setting, plain.trials, plain.reference) == ("ce", "2", None, False)
    assert (plain.config["num-server-rounds"], plain.federation["num-supernodes"]) == (3, 2)


def test_only_data_and_partition_make_a_setting(tmp_path: Path) -> None:
    axes = {
        "partition": ["iid", {"name": "uneven", "partition": "dirichlet", "partition-args": "alpha=0.5"}],
        "size": [{"name": "small", "image-size": 16}, {"name": "large", "image-size": 32, "train-split": "clean"}],
        "share": [{"name": "cpu", "federation": {"client-resources-num-cpus": 1}}],
        "drop-last": [True],
    }
    assert [(one.row.label, one.row.setting) for one in rows(write_grid(tmp_path, axes=axes, seeds=[1]))] == [
        ("small, cpu, true", "iid"), ("large, cpu, true", "iid"),
        ("small, cpu, true", "uneven"), ("large, cpu, true", "uneven"),
    ]  # fmt: skip


def test_names_default_to_values(tmp_path: Path) -> None:
    axes = {"local-epochs": [1, 5], "x": [{"momentum": 0.5, "drop-last": False}, {"learning-rate": 0.1, "name": "y"}]}
    labels = [one.row.label for one in rows(write_grid(tmp_path, axes=axes, seeds=[1]))]
    assert labels == ["1, 0.5, false", "1, y", "5, 0.5, false", "5, y"]


def test_combinations_can_be_left_out(tmp_path: Path) -> None:
    axes = {**GRID["axes"], "local-epochs": [1, 5]}
    left_out = [{"method": "elr", "noise": "pairflip"}, {"local-epochs": 5, "method": "ce"}]
    found = rows(write_grid(tmp_path, axes=axes, seeds=[1], exclude=left_out))
    assert [(one.row.label, one.row.setting) for one in found] == [
        ("ce, 1", "symmetric"), ("ce, 1", "pairflip"), ("elr, 1", "symmetric"), ("elr, 5", "symmetric"),
    ]  # fmt: skip


def test_two_axes_set_no_key_in_common(tmp_path: Path) -> None:
    noise = {"name": "none", "label-noise": "none", "trials": 2, "federation": {"num-supernodes": 3}}
    both = {**noise, "name": "on truth"}
    axes = {"method": ["ce", both], "noise": [{"name": "clean"}, noise]}
    grid, found = read_grid(write_grid(tmp_path, axes=axes))
    assert not found
    said = doubly_set(grid)
    assert [re.findall(r"'([\w-]+)'", line) for line in said] == [
        ["none", key] for key in ("label-noise", "num-supernodes", "trials")
    ]
    assert all(line.startswith("[axes]: method 'on truth' and noise 'none' both set ") for line in said)
    excluded, _ = read_grid(write_grid(tmp_path, axes=axes, exclude=[{"method": "on truth", "noise": "none"}]))
    assert not doubly_set(excluded)


def test_title_and_defaults(tmp_path: Path) -> None:
    grid, found = read_grid(write_grid(tmp_path, {"seeds": [3]}))
    assert not found
    assert (grid.title, grid.baseline, grid.keep, grid.size) == ("a grid", "", "all", 1)
    assert read_grid(write_grid(tmp_path, title="Noise, 布", keep="results"))[0].title == "Noise, 布"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sedes": [1]}, r"there is no key 'sedes' \(did you mean 'seeds'\?\); known keys are title, "),
    ({"title": 3}, r"'title' is 3; it must be a text that"),
    ({"title": "a\nb"}, r"'title' is 'a\\nb'; it must be"),
    ({"baseline": ["ce"]}, r"'baseline' is \['ce'\]; it must be text"),
    ({"keep": "result"}, r"'keep' is 'result'; it must be one of all, results \(did you mean 'results'\?\)"),
    ({"seeds": None}, r"'seeds' is missing; it must be a list"),
    ({"seeds": []}, r"'seeds' is \[\]; it must be a list"),
    ({"seeds": 1}, r"'seeds' is 1; it must be a list"),
    ({"seeds": [1, 2, 1]}, r"'seeds' has 1 twice"),
    ({"seeds": [-1]}, r"a seed in 'seeds' is -1; it must be a whole number"),
    ({"seeds": [True]}, r"a seed in 'seeds' is True"),
    ({"base": 3}, r"\[base\] is 3; it must be a table"),
    ({"base": {"seed": 3}}, r"\[base\] sets 'seed', but the grid's `seeds` set it"),
    ({"base": {"run-name": "x"}}, r"\[base\] sets 'run-name', but each row"),
    ({"base": {"output-dir": "/x"}}, r"\[base\] sets 'output-dir', but rows are written below --out"),
    ({"base": {"resume": "auto"}}, r"\[base\] sets 'resume', but rows resume by themselves"),
    ({"base": {"num-supernodes": 3}}, r"\[base\] sets 'num-supernodes', .* belongs into \[federation\]"),
    ({"axes": {"method": []}}, r"\[axes\] method is \[\]; it must be a list of at least one value"),
    ({"axes": {"method": "ce"}}, r"\[axes\] method is 'ce'; it must be a list"),
    ({"axes": {"method": ["ce", "ce"]}}, r"\[axes\] method has 'ce' twice"),
    ({"axes": {"method": ["ce", ["elr"]]}}, r"\[axes\] method, value 2 is \['elr'\]; it must be a number"),
    ({"axes": {"method": [""]}}, r"\[axes\] method, value 1 needs a short name of its own"),
    ({"axes": {"x": [{"name": 3, "method": "ce"}]}}, r"\[axes\] x, value 1: 'name' is 3; it must be"),
    ({"axes": {"x": [{"name": "y", "trials": 0}]}}, r"\[axes\] x, value 1: 'trials' is 0; it must be a whole"),
    ({"axes": {"x": [{"name": "y", "reference": 1}]}}, r"value 1: 'reference' is 1; it must be true or false"),
    ({"axes": {"x": [{"name": "y", "federation": 1}]}}, r"value 1: 'federation' is 1; it must be a table"),
    ({"axes": {"x": [{"seed": 1}]}}, r"\[axes\] x, value 1 sets 'seed', but"),
    ({"axes": {"x": [{}]}}, r"\[axes\] x, value 1 needs a short name"),
    ({"axes": {"metod": ["ce"]}}, r"plain values, .*: run config: there is no key 'metod' \(did you mean 'method'"),
    ({"axes": {"noise": [0.1]}}, r"plain values, .*: run config: there is no key 'noise'; did you mean 'label-noise'"),
    ({"axes": {"seed": [1, 2]}}, r"\[axes\] seed sets 'seed', but"),
    ({"axes": {"num-supernodes": [1]}}, r"is a key of Flower's; its values must be tables"),
    ({"axes": {"x": [{"name": "y", "num-supernodes": 1}]}}, r"belongs into federation = \{num-supernodes = 1\}"),
    ({"axes": {"batch-size": [*range(1, 200)], "local-epochs": [*range(1, 200)]}}, r"make 79,202 rows; .* 10,000"),
    ({"exclude": {"method": "ce"}}, r"'exclude' must be tables, each below a line \[\[exclude\]\]"),
    ({"exclude": [{}]}, r"an \[\[exclude\]\] is empty"),
    ({"exclude": [{"metod": "ce"}]}, r"no axis 'metod' \(did you mean 'method'\?\); known are method, noise"),
    ({"exclude": [{"method": "gce"}]}, r"method has no value named 'gce' .*known are ce, elr"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), WRONG)
def test_one_fault_is_one_sentence(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    found = problems(tmp_path, **changes)
    assert len(found) == 1, found
    assert re.search(sentence, found[0]), found[0]


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, sedes=[1], seeds=[-1, 2, 2], base={"seed": 1}, axes={"x": []}, exclude=[{"y": 1}])
    assert len(found) == 6


@pytest.mark.parametrize(
    "text", ["a = ", "[[base]]\n[base]", "x = " + "[" * 5000, "x = 1" + "0" * 5000, "\0", "a = '\ud800'"]
)
def test_what_is_no_toml_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ExperimentError) as error:
        read_grid(path)
    assert is_a_sentence(str(error.value))
    assert str(error.value).startswith(f"{path} is no ")


def test_what_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    no_file = "is no file; it must be a grid in TOML, see docs/experiments.md."
    wrong = {tmp_path: no_file, tmp_path / "absent": no_file, tmp_path / "a\0b": no_file}
    for path, why in {**wrong, tmp_path / ("x" * 300): "cannot be read: File name too long."}.items():
        with pytest.raises(ExperimentError) as error:
            read_grid(path)
        assert str(error.value) == f"{path} {why}"


ANYTHING = st.recursive(
    st.none().map(lambda _: "ce") | st.integers(-3, 2**70) | st.floats() | st.booleans() | st.text(max_size=6)
    | st.datetimes() | st.sampled_from(["method", "elr", "label-noise", "symmetric", "num-supernodes", "name"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=4) | st.sampled_from(["name", "method", "federation", "trials"]), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=5), ANYTHING, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_toml_is_a_plan_or_sentences(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("any") / "grid.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    try:
        grid, found = read_grid(path)
    except ExperimentError as error:
        assert is_a_sentence(str(error))  # noqa: PT017
        return
    assert all(map(is_a_sentence, found)), found
    assert all(map(is_a_sentence, doubly_set(grid)))
    assert len(list(combinations(grid))) <= max(1, grid.size)
