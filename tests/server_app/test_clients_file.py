"""`clients.jsonl`: a line per usable reply, whatever fails, is retried or is killed."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message

from client_app.app import app as client_app
from server_app.callbacks import History, of_a_run
from server_app.callbacks.clients_file import LONGEST_LIST, ClientsFile, lines_of
from server_app.round_lines import CLIENTS, read_lines
from tests.fakes import CutOffError, cut_off_in, rounds_of, run_in_process
from tests.server_app.test_callbacks import _result
from tests.server_app.test_traffic import CNN, Failing

OF_TIME = ("seconds", "train-seconds")
VISIT = {"images": 30, "num-examples": 30, "train-loss": 0.5, "visit-seconds": 1.23456, "train-seconds": 1.0}


def _run(out: Path, sample: Path, **settings: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{"model": "cnn", "image_size": 16, **settings})


def _lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "clients.jsonl").read_text(encoding="utf-8").splitlines()]


def _without_times(run_dir: Path) -> list[dict[str, Any]]:
    return [{name: one for name, one in line.items() if name not in OF_TIME} for line in _lines(run_dir)]


def test_a_run_writes_a_line_for_each_visit(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = _run(tmp_path, tiny_sample, local_epochs=2)
    lines, rounds = _lines(run_dir), rounds_of(run_dir)
    assert [(line["round"], line["client"]) for line in lines] == [
        (entry["round"], client) for entry in rounds for client in entry["sampled-partitions"]
    ]
    for line in lines:
        assert list(line)[:8] == [
            "round", "client", "images", "train-loss", "seconds", "train-seconds", "sent-bytes", "received-bytes",
        ]  # fmt: skip
        assert line["images"] == 30
        assert line["sent-bytes"] == line["received-bytes"] == CNN
        assert 0 < line["train-seconds"] < line["seconds"]
        assert len(line["epoch-losses"]) == 2
        assert "num-examples" not in line
    for entry in rounds:
        losses = [line["train-loss"] for line in lines if line["round"] == entry["round"]]
        assert entry["train-loss-worst-tenth"] == max(losses)
        assert min(losses) < entry["train-loss-percentiles"][0] < entry["train-loss-percentiles"][-1] < max(losses)


@pytest.mark.parametrize("message", [2, 3, 4, 6])  # of two in each round
def test_a_run_that_is_cut_off_ends_with_the_same_lines(tmp_path: Path, tiny_sample: Path, message: int) -> None:
    whole = _run(tmp_path / "whole", tiny_sample, num_server_rounds=3)
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, num_server_rounds=3, handler=cut_off_in(message))
    cut = _run(tmp_path, tiny_sample, num_server_rounds=3, resume="auto")
    assert _without_times(cut) == _without_times(whole)


@pytest.mark.parametrize("callback", ["ClientsFile", "NoisyClientsFile", "MetricsFile", "Checkpoints"])
def test_a_kill_between_two_files_is_repaired(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    """Before the callback writes its file, those before it have written theirs."""
    whole = _run(tmp_path / "whole", tiny_sample, num_server_rounds=3)

    def killed(self: Any, result: Any) -> None:
        if result.server_round == 2:
            raise CutOffError
        original(self, result)

    with monkeypatch.context() as patch:
        kind = getattr(of_a_run, callback)
        original = kind.after_round
        patch.setattr(kind, "after_round", killed)
        with pytest.raises(CutOffError):
            _run(tmp_path, tiny_sample, num_server_rounds=3)
    cut = tmp_path / "run"
    assert len(_lines(cut)) == (2 if callback == "ClientsFile" else 4)
    assert len(rounds_of(cut)) == (2 if callback == "Checkpoints" else 1)
    _run(tmp_path, tiny_sample, num_server_rounds=3, resume="auto")
    assert _without_times(cut) == _without_times(whole)
    assert [line["round"] for line in rounds_of(cut)] == [1, 2, 3]


@pytest.mark.parametrize(("how", "received"), [("error", 1), ("refused", 2)])
def test_a_client_that_is_asked_again_has_one_line_with_all_its_bytes(
    tmp_path: Path, tiny_sample: Path, how: str, received: int
) -> None:
    handler = Failing(how, 1)
    run_dir = _run(tmp_path, tiny_sample, handler=handler, num_server_rounds=1)
    [entry], lines = rounds_of(run_dir), _lines(run_dir)
    assert [line["client"] for line in lines] == entry["sampled-partitions"]
    found = {line["client"]: (line["sent-bytes"], line["received-bytes"]) for line in lines}
    [other] = set(found) - {handler.victim}
    assert found == {handler.victim: (2 * CNN, received * CNN), other: (CNN, CNN)}
    assert sum(sent for sent, _ in found.values()) == entry["sent-bytes"]
    assert sum(back for _, back in found.values()) == entry["received-bytes"]


def test_a_client_without_a_usable_reply_has_no_line(tmp_path: Path, tiny_sample: Path) -> None:
    handler = Failing("error", 2)
    run_dir = _run(tmp_path, tiny_sample, handler=handler, num_server_rounds=1)
    [line] = _lines(run_dir)
    assert line["client"] != handler.victim


def test_the_words_of_a_client_do_not_reach_the_file(tmp_path: Path, tiny_sample: Path) -> None:
    """What is not announced is refused, whatever its name and value; reasons are in failures.jsonl."""
    evil = '"}\n{"round": 1, "client": 9}\x1b[31m'

    def handler(message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 0:
            reply.content.metric_records["metrics"][evil] = 1.0
        elif message.metadata.message_type == "train" and context.node_config["partition-id"] == 2:
            return Message(Error(1, evil), reply_to=message)
        return reply

    run_dir = _run(tmp_path, tiny_sample, handler=handler, num_server_rounds=1, fraction_train=1.0)
    assert {line["client"] for line in _lines(run_dir)} == {1, 3}
    assert "\x1b" not in (run_dir / "clients.jsonl").read_text(encoding="utf-8")


def test_names_of_a_method_never_replace_ours_and_odd_values_stay_out() -> None:
    report = {
        **VISIT, "round": 77, "client": 78, "seconds": 80.0, "sent-bytes": 81, "norm-bit": 1,
        "wild\n\"name": math.inf, "list": [1.0, math.nan], "long": [0.0] * (LONGEST_LIST + 1), "text": "x",
        "texts": ["x"], "longest": [0.0] * LONGEST_LIST,
    }  # fmt: skip
    result = replace(_result(7), sampled_partitions=[4, 1], visits={1: VISIT, 4: report}, bytes_of_visits={4: (5, 6)})
    first, second = lines_of(result)
    assert first == {
        "round": 7, "client": 4, "images": 30, "train-loss": 0.5, "seconds": 1.235, "train-seconds": 1.0,
        "sent-bytes": 5, "received-bytes": 6, 'wild\n"name': None, "list": [1.0, None], "longest": [0.0] * LONGEST_LIST,
    }  # fmt: skip
    assert second["client"] == 1


def test_a_weight_that_is_not_the_number_of_images_stands_beside_it() -> None:
    [line] = lines_of(replace(_result(1), visits={4: {**VISIT, "num-examples": 7}}))
    assert (line["images"], line["num-examples"]) == (30, 7)
    [usual] = lines_of(replace(_result(1), visits={4: VISIT}))
    assert "num-examples" not in usual


def test_means_over_images_count_also_those_that_a_method_does_not_trust(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = _run(
        tmp_path, tiny_sample, method="selfie", method_args="weigh-by='used' noise-rate=0.6 warm-up-rounds=0",
        inspection="both", fraction_train=1.0, partition="quantity", partition_args="alpha=2.0 min-size=12",
    )  # fmt: skip
    lines, rounds = _lines(run_dir), rounds_of(run_dir)
    trained_on: dict[int, set[int]] = {}
    for line in lines:
        trained_on.setdefault(line["client"], set()).add(line["images"])
    assert all(len(images) == 1 for images in trained_on.values())
    assert sum(max(images) for images in trained_on.values()) == 120
    assert any(line.get("num-examples", line["images"]) < line["images"] for line in lines)
    last = [line for line in lines if line["round"] == len(rounds)]
    assert sum(line.get("num-examples", line["images"]) for line in last) == rounds[-1]["num-examples"] < 120
    for name in ("loss-before", "agreement-before", "agreement-after", "prediction-changes"):
        mean = sum(line["images"] * line[name] for line in last) / 120
        assert rounds[-1][name] == pytest.approx(mean)


def test_every_line_is_one_line(tmp_path: Path) -> None:
    visits = {1: {**VISIT, 'a\n"b': 1.0}, 4: VISIT}
    callback = ClientsFile(tmp_path / "clients.jsonl")
    callback.on_start(History())
    for server_round in (1, 2):
        callback.after_round(replace(_result(server_round), visits=visits))
    assert [(line["round"], line["client"]) for line in _lines(tmp_path)] == [(1, 4), (1, 1), (2, 4), (2, 1)]
    callback.on_start(History(1))
    assert [(line["round"], line["client"]) for line in _lines(tmp_path)] == [(1, 4), (1, 1)]


def test_what_a_method_judges_has_scores_where_truth_is_known() -> None:
    counts = {
        "images-known": 20, "labels-right": 15, "corrected-known": 20, "corrected-right": 18, "suspected": 4,
        "suspected-wrong": 3,
        "suspected-images": 5, "suspects-budget": 5, "suspects-budget-wrong": 2.5,
    }  # fmt: skip
    [line] = lines_of(replace(_result(1), visits={4: {**VISIT, **counts}}))
    assert line.items() >= {
        "label-accuracy": 0.75, "corrected-label-accuracy": 0.9, "suspects-precision": 0.75, "suspects-recall": 0.6,
        "suspected-images": 5, "images-known": 20, "suspects-at-budget-precision": 0.5, "suspects-at-budget-fnr": 0.5,
        "suspects-budget": 5, "suspects-budget-wrong": 2.5,
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    "damaged",
    [
        b"x",
        b'{"round": 1}',
        b'{"round": 1, "client": "0"}',
        b'{"round": 1, "client": -1}',
        b'{"round": 1, "client": 1.0}',
    ],
)
def test_a_damaged_line_costs_no_other(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "clients.jsonl"
    sound = [b'{"round": 1, "client": 3}', b'{"round": 1, "client": 0}', b'{"round": 2, "client": 3}']
    path.write_bytes(b"\n".join([sound[0], damaged, *sound[1:], b'{"round": 3, "client": 0}', b""]))
    ClientsFile(path).on_start(History(2))
    assert path.read_bytes().splitlines() == sound
    assert [entry["client"] for entry in read_lines(path, 9, CLIENTS).entries] == [3, 0, 3]
