"""What a run logs and writes."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from matplotlib.figure import Figure
from PIL import Image

from config.measure import CLEAN_TEST, CLEAN_VAL, Measure
from config.published import Published, published_for
from config.run_config import RunConfig
from learning.evaluation import Evaluation
from server_app.callbacks import History, OccasionalCallback, RoundResult, of_a_run
from server_app.callbacks.failures_file import FailuresFile
from server_app.callbacks.metrics_file import MetricsFile, as_json
from server_app.callbacks.pictures import Pictures
from server_app.callbacks.progress import Progress, clock
from server_app.traffic import RoundTraffic, Traffic


def _result(server_round: int, right: int = 3, classes: int = 2, seconds: float = 10.0) -> RoundResult:
    confusion = np.zeros((classes, classes), dtype=np.int64)
    confusion[0, 0], confusion[0, 1] = right, 10 - right
    return RoundResult(
        server_round=server_round,
        arrays=ArrayRecord({"w": Array(np.zeros(2, dtype=np.float32))}),
        test=Evaluation(1.5, confusion),
        validation=None,
        train_loss=0.7,
        num_examples=20,
        seconds=seconds,
        slowest_client_seconds=6.0,
        slowest_training_seconds=5.0,
        evaluation_seconds=2.0,
        images_seen=120,
        images_per_second=12.0,
        sampled_partitions=[4, 1],
        failures={1: "client 1: out of luck"},
    )


def test_occasional_callbacks_write_when_due_and_at_the_end() -> None:
    class Recorder(OccasionalCallback):
        def __init__(self) -> None:
            super().__init__()
            self.rounds: list[int] = []

        def write(self, result: RoundResult) -> None:
            self.rounds.append(result.server_round)

    seldom, always = Recorder(), Recorder()
    always.SECONDS = -1.0
    for callback in (seldom, always):
        for server_round in (1, 2, 3):
            callback.after_round(_result(server_round))
        callback.on_end()
        callback.on_end()
    assert seldom.rounds == [3]
    assert always.rounds == [1, 2, 3]
    nothing = Recorder()
    nothing.on_end()
    assert nothing.rounds == []


def test_metrics_are_written_after_each_round_and_a_class_without_images_has_no_recall(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    for server_round in (1, 2):
        metrics.after_round(_result(server_round))
        lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == server_round
    entry = json.loads(lines[0])
    assert entry["per-class-recall"] == [0.3, None]
    assert entry["failed-partitions"] == [1]
    assert entry["confusion-matrix"] == [[3, 7], [0, 0]]
    assert "val-accuracy" not in entry
    MetricsFile(tmp_path / "metrics.jsonl").on_start(History(1, [entry]))  # a resume after round 1
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [entry]


def test_the_progress_table_is_aligned_and_the_time_left_ignores_the_first_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("flwr").propagate = True
    progress = Progress(12)
    with caplog.at_level("INFO"):
        for server_round, right, seconds in ((1, 3, 100.0), (2, 5, 10.0), (3, 4, 20.0)):
            progress.after_round(_result(server_round, right, seconds=seconds))
    assert [message for message in caplog.messages if "gave no usable" not in message] == [
        "round  accuracy  best (round)  loss (training) seconds     left",
        " 1/12    30.00%   30.00% ( 1)   1.500 ( 0.700)   100.0    18:20",
        " 2/12    50.00%   50.00% ( 2)   1.500 ( 0.700)    10.0     1:40",
        " 3/12    40.00%   50.00% ( 2)   1.500 ( 0.700)    20.0     2:15",  # nine rounds of (10 + 20) / 2 seconds
    ]
    assert caplog.messages.count("1 of 2 clients gave no usable reply; failures.jsonl has the reasons.") == 3


def test_rounds_without_evaluation_have_a_row_and_predict_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    progress = Progress(20, evaluate_every=7)
    history = History(6, [{"round": number, "test-accuracy": None} for number in range(1, 7)])
    results = [replace(_result(number, seconds=10.0), failures={}) for number in range(7, 16)]
    results = [one if one.server_round % 7 == 0 else replace(one, test=None) for one in results]
    results[7] = replace(results[7], seconds=45.0)  # evaluation takes 35 seconds
    with caplog.at_level("INFO"):
        progress.on_start(History())
        progress.after_round(replace(results[1], server_round=1))
        progress.on_start(history)
        for result in results:
            progress.after_round(result)
    assert caplog.messages[1] == " 1/20         -             -       - ( 0.700)    10.0     3:10"
    assert caplog.messages[-2:] == [
        "14/20    30.00%   30.00% ( 7)   1.500 ( 0.700)    45.0     1:30",  # six rounds of (6 * 10 + 45) / 7 seconds
        "15/20         -   30.00% ( 7)       - ( 0.700)    10.0     1:15",
    ]


def test_the_log_says_what_travels_once_and_when_it_changes_unless_clients_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("flwr").propagate = True
    progress = Progress(1000)
    rounds = [
        (10**6, 10**6, {0: "no"}), (2 * 10**6, 2 * 10**6, {}), (2 * 10**6, 2 * 10**6 + 99, {}),
        (3 * 10**6, 10**6, {1: "no"}), (2 * 10**6, 2 * 10**6, {}), (377_603_000, 7, {}),
    ]  # fmt: skip
    with caplog.at_level("INFO"):
        for number, (sent, received, failures) in enumerate(rounds, start=995):
            traffic = RoundTraffic(Traffic(sent, received), questions=Traffic(sent=5), evaluation=Traffic(sent=number))
            progress.after_round(replace(_result(number), traffic=traffic, failures=failures))
        progress.after_round(replace(_result(1001), traffic=traffic, failures={}, sampled_partitions=[0]))
    said = [message for message in caplog.messages if " sent " in message]
    assert said == [
        "Round 995 sent 1 MB to 2 clients and received 1 MB.",
        "Round 996 sent 2 MB to 2 clients and received 2 MB.",
        "Round 1000 sent 378 MB to 2 clients and received 7 B.",
        "Round 1001 sent 378 MB to 1 client and received 7 B.",
    ]
    assert max(map(len, said)) <= 68


def test_bytes_of_questions_and_evaluation_are_written_if_there_are_any() -> None:
    keys = ("sent-bytes", "received-bytes", "query-bytes", "eval-bytes")
    nothing = as_json(_result(1))
    assert [nothing.get(key) for key in keys] == [0, 0, None, None]
    assert not {"query-bytes", "eval-bytes"} & nothing.keys()
    all_of_it = as_json(replace(_result(1), traffic=RoundTraffic(Traffic(1, 2), Traffic(3, 4), Traffic(5, 6))))
    assert [all_of_it[key] for key in keys] == [1, 2, 3, 5]


@pytest.mark.parametrize(("rounds", "every"), [(1, 1), (14, 1), (14, 5), (100, 1), (1000, 1), (1000, 300)])
def test_rows_fit_into_80_columns_behind_what_flower_puts_before_them(
    rounds: int, every: int, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("flwr").propagate = True
    progress = Progress(rounds, every)
    with caplog.at_level("INFO"):
        for server_round in range(1, rounds + 1):
            result = replace(_result(server_round, 10, seconds=30.0), failures={})
            loss = (1.5, 12.345678, 98765.4, math.inf)[server_round % 4]
            test = Evaluation(loss, np.eye(2, dtype=np.int64))
            progress.after_round(replace(result, test=test if server_round % every == 0 else None, train_loss=loss))
    assert max(map(len, caplog.messages)) <= 68
    assert len({len(message) for message in caplog.messages}) == 1
    assert len(caplog.messages) == rounds + math.ceil(rounds / 20)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_pictures_of_a_run(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, ("a", "b"), "title")
    for server_round in range(1, 4):
        pictures.after_round(_result(server_round))
    pictures.on_end()
    for name in ("accuracy.png", "confusion.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 400


@pytest.mark.parametrize(("measure", "compared"), [(CLEAN_TEST, True), (CLEAN_VAL, False)])
def test_accuracy_on_clean_test_alone_is_compared_with_what_was_published(
    measure: Measure, compared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def note(accuracies: object, title: str, published: Published | None, measured_on: str) -> Figure:
        drawn.append((published, measured_on))
        return Figure()

    monkeypatch.setattr("server_app.callbacks.pictures.draw_accuracy", note)
    published = published_for("fedcorr", "ce")
    pictures = Pictures(tmp_path, ("a", "b"), "title", published, measure)
    pictures.after_round(replace(_result(1), validation=_result(1).test))
    pictures.on_end()
    assert drawn == [(published if compared else None, measure.name)]


@pytest.mark.parametrize(
    ("preset", "method", "name"),
    [("", "ce", None), ("fnbench", "ce", None), ("fedcorr", "dividemix", "DivideMix"), ("notebook", "elr", "FedAvg")],
)
def test_a_run_is_compared_with_what_its_preset_and_method_say(
    preset: str, method: str, name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Published | None] = []
    monkeypatch.setattr(of_a_run, "Pictures", lambda *args, **_: given.append(args[3]))
    config = RunConfig(preset=preset, method=method, strategy="fedavg", model="cnn")
    start: Any = SimpleNamespace(run_dir=tmp_path, run="a")
    model, failures = torch.nn.Linear(1, 1), FailuresFile(tmp_path / "failures.jsonl")
    of_a_run.callbacks_of(start, config, [], ("a", "b"), model, flower_run="", lists={}, failures=failures)
    assert [published and published.name for published in given] == [name]


def test_what_is_not_finite_is_null() -> None:
    result = replace(_result(1), test=Evaluation(math.inf, np.eye(2, dtype=np.int64)), of_strategy={"norm": math.nan})
    line = as_json(result)
    assert line["test-loss"] is line["norm"] is None
    assert line["test-accuracy"] == 1.0
    json.dumps(line, allow_nan=False)


def test_no_other_number_takes_the_name_of_one_that_picks_rounds() -> None:
    """Neither where the clients have reported it nor where they have not."""
    names = {"prediction-changes": 0.0, "own-accuracy-before": 0.0, "val-accuracy": 1.0, "train-loss-worst-tenth": 0.0}
    report = {"images": 10, "num-examples": 10, "train-loss": 0.5, "prediction-changes": 0.25}
    for where in ("of_method", "of_strategy"):
        result = replace(_result(1), **{where: {**names, "mine": 2.0}})  # type: ignore[arg-type]
        line = as_json(replace(result, visits={4: report}))
        assert (line["prediction-changes"], line["train-loss-worst-tenth"], line["mine"]) == (0.25, 0.5, 2.0)
        assert not {"own-accuracy-before", "val-accuracy"} & line.keys()
        assert "prediction-changes" not in as_json(result)
