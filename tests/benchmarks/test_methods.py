"""The methods' benchmark without its runs: the tables' numbers, which rows are missing, the truth beside the sample."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.methods import __main__ as methods
from benchmarks.methods import cost as method_cost
from benchmarks.methods import settings as method_settings
from benchmarks.methods.data import digits, sample_and_truth
from benchmarks.methods.rows import COLUMNS, Cost, Row, append, beyond, markdown, read, table
from benchmarks.tools.in_process import SMALL
from client_app.app import app as client_app
from config import choices
from config.run_config import RunConfig, Value
from data.noise.synthetic import corrupt
from data.release import open_release
from data.sample import SampleSize
from methods import build_method


def _row(method: str, seed: int, last: float, best: float = 0.0, setting: str = "iid") -> Row:
    """A run whose last five rounds have mean `last`, after a round at `best`."""
    accuracy = [best or last, last - 2, last + 2, last, last - 1, last + 1]
    return Row(setting, method, seed, method_settings.mark_of(setting, method), accuracy, 50.0)


def test_the_table_compares_seed_by_seed() -> None:
    rows = [_row("ce", 1, 60.0, best=70.0), _row("ce", 2, 64.0, best=68.0), _row("gce", 1, 70.0), _row("gce", 2, 72.0)]
    base, gce = table(rows, {"gce": 1.25}, ["ceiling", "ce", "sce", "gce"])
    # ce: mean 62, deviation of 60 and 64 is 2 sqrt 2; its best is the mean of 70 and 68
    assert base == ("ce", 62.0, pytest.approx(2 * math.sqrt(2)), 69.0, None, None, "", 2, None)
    # gce: differences 10 and 8, mean 9, deviation sqrt 2; best of a run is 2 above its last mean
    assert gce == ("gce", 71.0, pytest.approx(math.sqrt(2)), 73.0, 9.0, pytest.approx(math.sqrt(2)), "yes", 2, 1.25)


def test_only_seeds_that_both_have_are_compared() -> None:
    rows = [_row("ce", 1, 60.0), _row("ce", 2, 64.0), _row("gce", 2, 65.0), _row("gce", 3, 90.0)]
    line = dict(zip(COLUMNS, table(rows, {}, ["ce", "gce"])[1], strict=True))
    assert line["minus ce, points"] == 1.0
    assert line["sd of that"] is None
    assert line["more than the spread"] == ""


def test_a_row_without_a_base_has_no_difference() -> None:
    assert table([_row("gce", 1, 65.0)], {}, ["ce", "gce"]) == [("gce", 65.0, None, 67.0, None, None, "", 1, None)]


@pytest.mark.parametrize(
    ("difference", "spreads", "answer"),
    [
        (3.0, [1.0, 2.9, 0.5], "yes"),
        (3.0, [1.0, 3.0, 0.5], "no"),
        (-3.0, [1.0, 2.0, 0.5], "yes, below"),
        (3.0, [1.0, None, 0.5], ""),
        (None, [1.0, 1.0, 1.0], ""),
    ],
)
def test_more_than_the_spread_is_more_than_each_of_them(
    difference: float | None, spreads: list[float | None], answer: str
) -> None:
    assert beyond(difference, spreads) == answer


def test_rows_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    results = tmp_path / "deep" / "rows.jsonl"
    assert read(results) == ([], [])
    assert methods.missing([], ["iid"], ["ce", "gce"], [1, 2]) == [
        ("iid", "ce", 1), ("iid", "gce", 1), ("iid", "ce", 2), ("iid", "gce", 2),
    ]  # fmt: skip
    append(results, _row("ce", 1, 60.0))
    append(results, Row("iid", "gce", 2, "00000000", [1.0], 1.0))  # of other settings
    append(results, Cost("iid", "gce", "00000000", [1.0, 1.5]))
    rows, costs = read(results)
    assert rows[0] == _row("ce", 1, 60.0)
    assert costs == [Cost("iid", "gce", "00000000", [1.0, 1.5])]
    assert methods.missing(rows, ["iid"], ["ce", "gce"], [1, 2]) == [
        ("iid", "gce", 1), ("iid", "ce", 2), ("iid", "gce", 2),
    ]  # fmt: skip


def test_a_line_that_a_kill_cut_off_costs_its_own_row_alone(tmp_path: Path) -> None:
    results = tmp_path / "rows.jsonl"
    append(results, _row("ce", 1, 60.0))
    append(results, _row("ce", 2, 61.0))
    results.write_bytes(results.read_bytes()[:-20])
    append(results, _row("ce", 3, 62.0))
    assert [row.seed for row in read(results)[0]] == [1, 3]


def test_a_mark_follows_what_is_set_and_not_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, names = method_settings.SETTINGS, method_settings.METHODS
    marks = {(setting, name): method_settings.mark_of(setting, name) for setting in settings for name in names}
    assert len(set(marks.values())) == len(marks)
    monkeypatch.setitem(method_settings.METHODS, "gce", method_settings.MethodSpec("gce", "q=0.5"))
    changed = {key for key, mark in marks.items() if method_settings.mark_of(*key) != mark}
    assert changed == {(setting, "gce") for setting in settings}


def test_the_ceiling_has_no_noise_and_is_otherwise_the_same() -> None:
    for setting in method_settings.SETTINGS:
        noisy, clean = (method_settings.config_of(setting, name, 3) for name in ("ce", "ceiling"))
        assert {key: noisy[key] for key in noisy if clean.get(key) != noisy[key]} == dict(
            method_settings.SETTINGS[setting].noise
        )
        assert noisy["seed"] == 3


def test_a_forget_rate_is_the_setting_s_share_of_wrong_labels() -> None:
    args = [method_settings.config_of(setting, "co-teaching", 1)["method-args"] for setting in method_settings.SETTINGS]
    assert args == [f"forget-rate={rate}" for rate in (0.395, 0.26, 0.4, 0.4)]


def test_the_matrix_of_a_setting_is_that_of_its_noise() -> None:
    for setting in ("mixed", "digits-symmetric", "digits-pairflip"):
        place = method_settings.SETTINGS[setting]
        matrix = method_settings.transition_of(setting)
        true = np.repeat(np.arange(len(matrix), dtype=np.int32), 1000)
        given = corrupt(true, str(place.noise["label-noise"]), len(matrix), 0, 10, 1, rate=place.wrong)
        shares = np.zeros(matrix.shape)
        np.add.at(shares, (true, given), 1 / 1000)
        np.testing.assert_allclose(shares, matrix, atol=0.05)
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        np.testing.assert_array_equal(shares > 0, matrix > 0)


@pytest.mark.parametrize(
    ("setting", "method"),
    [(setting, method) for setting in method_settings.SETTINGS for method in method_settings.rows_of(setting)],
)
def test_every_row_is_a_run_that_the_app_accepts(setting: str, method: str, tmp_path: Path) -> None:
    config = method_settings.config_of(setting, method, 1)
    config["method-args"] = str(config["method-args"]).replace(method_settings.MATRIX, str(tmp_path))
    build_method(RunConfig.from_flat(config))
    assert SMALL.keys() <= config.keys()  # or a run in one process would differ from one through Flower


def test_every_method_has_a_row() -> None:
    assert {spec.method for spec in method_settings.METHODS.values()} == set(choices.METHODS)


def test_a_section_shows_rows_and_costs_of_today_s_settings_alone(tmp_path: Path) -> None:
    results = tmp_path / "rows.jsonl"
    for entry in (
        _row("ce", 1, 60.0), _row("ce", 2, 62.0), _row("gce", 1, 70.0), _row("gce", 2, 71.0), _row("gce", 3, 99.0),
        Row("iid", "sce", 1, "00000000", [50.0], 1.0), _row("sce", 1, 55.0, setting="mixed"),
        Cost("iid", "gce", method_settings.mark_of("iid", "gce"), [9.0]),
        Cost("iid", "gce", method_settings.mark_of("iid", "gce"), [1.0, 1.2, 1.5]),
    ):  # fmt: skip
        append(results, entry)
    lines = methods.section("iid", list(method_settings.METHODS), [1, 2], results).splitlines()
    assert lines[-2:] == [
        "| ce | 61.0 | 1.4 | 63.0 |  |  |  | 2 |  |",
        "| gce | 70.5 | 0.7 | 72.5 | +9.5 | 0.7 | yes | 2 | 1.20 |",
    ]
    assert lines[-4:-2] == markdown([]).splitlines()


def test_the_truth_is_the_same_images_under_what_they_show(tmp_path: Path) -> None:
    size = SampleSize(train=60, clean_train=5, val=5, test=5, image_size=16, seed=1)
    released, truth = (open_release(path) for path in sample_and_truth(tmp_path, size))
    noisy, true = released.split("noisy_train"), truth.split("noisy_train")
    np.testing.assert_array_equal(true.labels, noisy.true)
    np.testing.assert_array_equal(true.keys, noisy.keys)
    assert (noisy.labels != noisy.true).any()
    assert truth.split("clean_test").digest == released.split("clean_test").digest
    key = bytes(true.keys[0]).decode()
    assert (truth.root / key).samefile(released.root / key)
    before = json.dumps(sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")))
    assert sample_and_truth(tmp_path, size) == (released.root, truth.root)
    assert json.dumps(sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt"))) == before


def test_digits_are_the_ones_that_scikit_learn_ships(tmp_path: Path) -> None:
    release = open_release(digits(tmp_path))
    train, test = release.split("noisy_train"), release.split("clean_test")
    assert (len(train.labels), len(test.labels)) == (1398, 359)
    assert method_settings.SETTINGS["digits-symmetric"].images == "1,398 images, 359 for test"
    np.testing.assert_array_equal(train.labels, train.true)
    with Image.open(release.root / bytes(test.keys[0]).decode()) as image:
        seen = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)).astype(float)
    scans = load_digits()
    nearest = np.abs(255 - scans.images * (255 / 16) - seen).mean(axis=(1, 2)).argmin()
    assert scans.target[nearest] == test.labels[0]
    assert digits(tmp_path) == release.root


def test_every_visit_but_the_first_is_paired_with_one_of_plain_cross_entropy(
    tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []
    answer = client_app

    def spy(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            config = message.content.config_records["config"]
            kind = "plain" if message.metadata.message_id == "plain" else "own"
            seen.append((kind, str(config["method-args"]), int(str(context.node_config["partition-id"]))))
        return answer(message, context)

    monkeypatch.setattr("benchmarks.methods.cost.client_app", spy)
    threads = torch.get_num_threads()
    config: dict[str, Value] = {
        "data-dir": str(tiny_sample),
        "model": "cnn",
        "method": "ce",
        "method-args": "label-smoothing=0.1",
    }
    try:
        found = method_cost.ratios(config, clients=2, rounds=3)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 2
    assert all(0 < ratio < 100 for ratio in found)
    assert [entry[:2] for entry in seen] == [
        ("own", "label-smoothing=0.1"), ("plain", ""), ("plain", ""), ("own", "label-smoothing=0.1"),
        ("own", "label-smoothing=0.1"), ("plain", ""),
    ]  # fmt: skip
    assert [entry[2] for entry in seen[::2]] == [entry[2] for entry in seen[1::2]]  # of the same client
