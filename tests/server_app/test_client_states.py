"""Methods with state: whole runs in one process, cut off and resumed, with replies that do not count."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import Context, Message, MetricRecord
from torch import Tensor
from torch.nn.functional import cross_entropy

from client_app.app import app as client_app
from client_app.corrected_labels import read_corrected
from learning.method import Batch, Method, Visit
from learning.schema import Number, Schema
from learning.server_half import Told
from methods import METHODS
from server_app.checkpoint_file import load_checkpoint
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process


@dataclass(frozen=True)
class Counting(Method):
    """Counts each image's visits, weights its loss by them, and reports the largest count."""

    remembers = True

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        return {"visits": Number(1, 100, whole=True)}

    def begin(self, visit: Visit) -> None:
        before = visit.state.get("visits", torch.zeros(len(visit.labels)))
        visit.state["visits"] = before + 1
        visit.metrics["visits"] = float(visit.state["visits"].max())

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        losses = cross_entropy(batch.logits, batch.labels, reduction="none")
        return (losses * visit.state["visits"][batch.rows]).mean()


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ce", Counting)


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    settings = {"method": "ce", "model": "cnn", "image_size": 16, "num_server_rounds": 5, "fraction_train": 0.5}
    return run_in_process(out, data_dir=str(sample), **{**settings, **changes})


def test_each_visit_continues_from_the_last_one(tmp_path: Path, tiny_sample: Path) -> None:
    heard: dict[int, list[float]] = {}

    def handler(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            client = int(context.node_config["partition-id"])
            heard.setdefault(client, []).append(float(reply.content["metrics"]["visits"]))  # type: ignore[arg-type]
        return reply

    run_dir = _run(tmp_path, tiny_sample, handler=handler, num_server_rounds=6)
    assert sum(map(len, heard.values())) == 12
    assert max(map(len, heard.values())) >= 2
    assert all(counts == list(range(1, len(counts) + 1)) for counts in heard.values())
    visits = load_checkpoint(run_dir / "checkpoints" / "round-00006.safetensors").visits
    assert set(visits) == set(heard)
    # A client that was never sampled has no folder.
    folders = sorted(path.name for path in (run_dir / "state").glob("*/client-*"))
    assert folders == [f"client-{client:05}" for client in sorted(heard)]


@pytest.mark.parametrize("message_number", [3, 4, 6, 9])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, message_number: int
) -> None:
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number, after=True), resume="auto")
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto")) == expected


REMEMBERING = [name for name in METHODS if METHODS[name].remembers]
# What makes each do more than its warm-up in five rounds.
ARGS = {
    "selfie": "warm-up-rounds=0 history=2",
    "joint-optimization": "warm-up-rounds=1 history=3",
    "fedclean": "alone-epochs=2",
    "fedrn": "warm-up-rounds=2",
    **dict.fromkeys(("fedelc", "maskedoptim", "dualoptim"), "warm-up-rounds=1 clients='all-noisy'"),
    "feddiv": "warm-up-rounds=2 confidence=0.2",
}


@pytest.mark.parametrize("method", REMEMBERING)
def test_every_method_that_remembers_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, method: str
) -> None:
    settings = {"method": method, "method_args": ARGS.get(method, ""), "local_epochs": 2}
    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, **settings)
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(6, after=True), resume="auto", **settings)
    resumed = _run(tmp_path / "cut", tiny_sample, resume="auto", **settings)
    assert outcome_of(resumed) == outcome_of(undisturbed)
    if METHODS[method].corrects:
        corrected, expected = read_corrected(resumed), read_corrected(undisturbed)
        assert np.array_equal(corrected.believed, expected.believed)


def test_a_run_can_return_to_the_checkpoint_before_the_last(tmp_path: Path, tiny_sample: Path) -> None:
    """Clients then have state from a round that will be repeated."""
    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, fraction_train=1.0)
    run_dir = _run(tmp_path / "again", tiny_sample, fraction_train=1.0)
    (run_dir / "checkpoints" / "round-00005.safetensors").unlink()
    _run(tmp_path / "again", tiny_sample, fraction_train=1.0, resume=str(run_dir))
    assert outcome_of(run_dir) == outcome_of(undisturbed)


def test_a_visit_whose_reply_is_lost_does_not_count(tmp_path: Path, tiny_sample: Path) -> None:
    """The client is retried in the same round, and continues from the visit before; no number tells of it."""
    settings: dict[str, Any] = {"fraction_train": 1.0, "num_server_rounds": 4}
    order = rounds_of(_run(tmp_path / "undisturbed", tiny_sample, **settings))[2]["sampled-partitions"]
    losses = dict(zip(order, (1.0, 1e16, -1e16, 0.0), strict=True))  # their sum in this order is 0, and 1 in others
    lost: list[int] = []

    def answer(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            partition = int(context.node_config["partition-id"])
            cast(MetricRecord, reply.content["metrics"])["train-loss"] = losses[partition]
        return reply

    def handler(message: Message, context: Context) -> Message:
        reply = answer(message, context)
        is_first = not lost and context.node_config["partition-id"] == order[0]
        if is_first and message.metadata.message_type == "train" and message.content["config"]["server-round"] == 3:
            lost.append(order[0])
            reply.content.array_records["arrays"].clear()
        return reply

    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, handler=answer, run_name="answer", **settings)
    run_dir = _run(tmp_path, tiny_sample, handler=handler, **settings)
    assert lost
    assert outcome_of(run_dir) == outcome_of(undisturbed)
    assert [line["failed-partitions"] for line in rounds_of(run_dir)] == [[], [], [], []]
    kept = next((run_dir / "state").glob(f"*/client-{lost[0]:05}/round-00004.safetensors"))
    assert np.all(safetensors.numpy.load_file(kept)["state/visits"] == 4)


def test_lost_state_is_logged_and_started_afresh(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(message: Message, context: Context) -> Message:
        told = message.content.config_records.get("visit")
        if told and told["last-round"] == 2 and context.node_config["partition-id"] == 1:
            shutil.rmtree(next((tmp_path / "run" / "state").glob("*/client-00001")))
        return client_app(message, context)

    with caplog.at_level(logging.WARNING, "flwr"):
        run_dir = _run(tmp_path, tiny_sample, handler=handler, fraction_train=1.0, num_server_rounds=4)
    assert [message for message in caplog.messages if "has lost its state" in message] == [
        "Client 1 has lost its state from round 2 and starts afresh, or from an older state if that one is damaged;"
        " clients that move between machines need a 'state-dir' that these share."
    ]
    kept = next((run_dir / "state").glob("*/client-00001/round-00004.safetensors"))
    assert np.all(safetensors.numpy.load_file(kept)["state/visits"] == 2)


def test_a_state_dir_of_the_run_or_of_the_node(tmp_path: Path, tiny_sample: Path) -> None:
    nodes = [{"partition-id": 0, "num-partitions": 2}, {"partition-id": 1, "num-partitions": 2}]
    nodes[1]["state-dir"] = str(tmp_path / "own")  # type: ignore[assignment]
    _run(tmp_path / "out", tiny_sample, nodes=nodes, state_dir=str(tmp_path / "shared"), fraction_train=1.0)
    assert [path.name for path in (tmp_path / "shared").glob("*/*")] == ["client-00000"]
    assert [path.name for path in (tmp_path / "own").glob("*/*")] == ["client-00001"]
    assert not (tmp_path / "out" / "run" / "state").exists()
