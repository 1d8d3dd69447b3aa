"""What was published under a preset's protocol: whose each number is, and that it is the published one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.choices import METHODS, PRESETS
from config.published import Published, published_for, published_rows
from tests.docs.pages import ROOT, run

FILES = sorted((ROOT / "config" / "presets").glob("*-published.json"))
PAGE = ROOT / "docs" / "published-numbers.md"
TEST_IMAGES = 10_526

# FedDiv's Table 4, typed in a second time: name there, method here, percent.
TABLE_4 = [
    ("FedAvg", "ce", 70.49), ("RoFL", "robustfl", 70.39), ("ARFL", "", 70.91), ("DivideMix", "dividemix", 68.83),
    ("JointOpt", "joint-optimization", 71.78), ("FedCorr", "fedcorr", 72.55), ("FedDiv", "feddiv", 72.96),
]  # fmt: skip

# CIFAR-10N's worse labels, typed in a second time.
WORSE = [
    ("CE", "ce", 77.69, 1.55), ("Forward T", "forward", 79.79, 0.46), ("GCE", "gce", 80.66, 0.35),
    ("Co-teaching", "co-teaching", 83.83, 0.13), ("Co-teaching+", "co-teaching-plus", 83.26, 0.17),
    ("ELR", "elr", 83.58, 1.13), ("ELR+", "", 91.09, 1.6), ("DivideMix", "dividemix", 92.56, 0.42),
    ("CORES*", "", 91.66, 0.09),
]  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _rows(path: Path) -> list[Published]:
    return published_rows(path.stem.removesuffix("-published"))


def test_each_file_belongs_to_a_preset() -> None:
    named = {path.stem.removesuffix("-published") for path in FILES}
    assert named == {"notebook", "fedcorr", "fnbench", "cifar10-fnbench", "cifar10n"} <= set(PRESETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_files_have_one_form(path: Path) -> None:
    content = _read(path)
    assert content.keys() - {"note"} == {"dataset", "protocol", "rows"}
    assert all(row.dataset == content["dataset"] for row in _rows(path))
    assert len(_rows(path)) == len(content["rows"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_number_has_its_source_table_and_statistic(path: Path) -> None:
    for row in _rows(path):
        assert all((row.name, row.source, row.table, row.statistic))
        assert all(0 < value < 100 for value in row.percent)
        assert bool(row.plus_minus) == bool(row.plus_minus_is)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_method_has_one_row_at_most_and_is_the_apps(path: Path) -> None:
    methods = [row.method for row in _rows(path) if row.method]
    assert len(methods) == len(set(methods))
    assert set(methods) <= set(METHODS)


def test_fedcorrs_protocol_has_the_numbers_of_feddivs_table() -> None:
    rows = published_rows("fedcorr")
    assert [(row.name, row.method, row.percent[0]) for row in rows] == TABLE_4
    assert not any(row.by_round for row in rows)
    assert [(row.name, row.plus_minus) for row in rows if row.plus_minus] == [("FedDiv", 0.43)]
    assert {row.statistic for row in rows} == {"best round on test"}
    borrowed = {row.name for row in rows if "taken over from FedCorr" in row.table}
    assert borrowed == {name for name, *_ in TABLE_4} - {"FedDiv"}


def test_each_accuracy_of_the_notebook_is_a_whole_number_of_test_images() -> None:
    """Two decimals say which: neighbours are 0.0095 points apart."""
    (row,) = published_rows("notebook")
    assert len(row.percent) == 40
    for percent in row.percent:
        right = round(percent * TEST_IMAGES / 100)
        assert round(100 * right / TEST_IMAGES, 2) == percent
    assert (max(row.percent), row.percent[-1]) == (69.26, 68.48)
    assert sum(row.percent[-10:]) / 10 == pytest.approx(68.95, abs=0.005)


@pytest.mark.parametrize(
    ("preset", "method", "name", "label"),
    [
        ("fedcorr", "feddiv", "FedDiv", "published on Clothing1M (FedDiv, best round on test): 72.96 ± 0.43"),
        ("fedcorr", "fedcorr", "FedCorr", "published on Clothing1M (FedCorr, best round on test): 72.55"),
        ("fedcorr", "ce", "FedAvg", "published on Clothing1M (FedAvg, best round on test): 70.49"),
        ("fedcorr", "elr", "FedAvg", "published on Clothing1M (FedAvg, best round on test): 70.49"),
        ("fedcorr", "custom.mine:Mine", "FedAvg", "published on Clothing1M (FedAvg, best round on test): 70.49"),
        ("notebook", "ce", "FedAvg", "published on Clothing1M (FedAvg, each round on test)"),
        ("notebook", "feddiv", "FedAvg", "published on Clothing1M (FedAvg, each round on test)"),
        (
            "cifar10n",
            "elr",
            "ELR",
            "published on CIFAR-10N worse (ELR, not federated, best epoch on test): 83.58 ± 1.13",
        ),
        (
            "cifar10n",
            "fedelc",
            "CE",
            "published on CIFAR-10N worse (CE, not federated, best epoch on test): 77.69 ± 1.55",
        ),
    ],
)
def test_a_run_is_compared_with_its_own_method_or_else_with_fedavg(
    preset: str, method: str, name: str, label: str
) -> None:
    published = published_for(preset, method)
    assert published is not None
    assert (published.name, published.label) == (name, label)


@pytest.mark.parametrize("method", [*METHODS, "custom.mine:Mine", ""])
@pytest.mark.parametrize("preset", ["", "clothing1m", "fnbench", "cifar10-fnbench"])
def test_other_presets_have_nothing_to_compare_with(preset: str, method: str) -> None:
    assert published_for(preset, method) is None


@pytest.mark.parametrize("preset", ["fnbench", "cifar10-fnbench"])
def test_fnbenchs_files_say_why_they_have_no_number(preset: str) -> None:
    content = _read(ROOT / "config" / "presets" / f"{preset}-published.json")
    assert content["rows"] == []
    assert "could not read" in content["note"]


def test_numbers_of_human_labels_are_the_reprinted_ones_and_say_that_nothing_is_federated() -> None:
    rows = published_rows("cifar10n")
    assert [(row.name, row.method, row.percent[0], row.plus_minus) for row in rows] == WORSE
    assert {row.statistic for row in rows} == {"not federated, best epoch on test"}
    assert all("Wei et al." in row.source and "reprinted" in row.source for row in rows)
    assert _read(ROOT / "config" / "presets" / "cifar10n-published.json")["protocol"].startswith("not federated")


def test_numbers_of_another_protocol_are_not_compared_with() -> None:
    """FedClean's table has 300 clients and other learning rates."""
    published = published_for("fedcorr", "fedclean")
    assert published is not None
    assert (published.name, published.percent) == ("FedAvg", (70.49,))
    assert not any("FedClean" in row.name + row.source for path in FILES for row in _rows(path))


def test_a_method_that_the_app_lacks_is_nobodys(tmp_path: Path) -> None:
    rows = [
        {"name": name, "method": "", "statistic": "s", "source": "o", "table": "t", "percent": 1.5} for name in "ab"
    ]
    (tmp_path / "mine-published.json").write_text(
        json.dumps({"dataset": "d", "protocol": "", "rows": rows}), encoding="utf-8"
    )
    assert [row.percent for row in published_rows("mine", tmp_path)] == [(1.5,), (1.5,)]
    assert published_for("mine", "ce", tmp_path) is published_for("mine", "", tmp_path) is None


def test_a_round_is_compared_with_the_same_round_and_after_the_last_with_the_last() -> None:
    (curve,) = published_rows("notebook")
    assert [curve.at(number) for number in (1, 2, 40, 41, 1000)] == [63.13, 65.93, 68.48, 68.48, 68.48]
    line = replace(curve, percent=(70.0,))
    assert [line.at(number) for number in (1, 40, 1000)] == [70.0] * 3


def test_the_page_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, _, percent in TABLE_4:
        assert f"{name} {percent:.2f}" in page
    assert "FedDiv 72.96 ± 0.43" in page
    assert "FedAvg 69.26; 68.48; 68.95" in page
    run(PAGE)
    assert "FedDiv: 72.96 (best round on test; Li et al., FedDiv, AAAI 2024" in capsys.readouterr().out
