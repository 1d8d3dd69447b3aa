"""Whole runs in one process in which not everything trains: what travels, what is saved, how they resume."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from flwr.app import Context, Message

from client_app.app import app as client_app
from config.run_config import ConfigError
from learning.network import NetworkSpec, build
from learning.replica import kept_replica
from learning.shared_state import plain_state
from messages import keys
from messages.arrays import as_numpy
from methods.clean_images import HEADS as XIAO_HEADS
from server_app.checkpoint_file import load_checkpoint
from server_app.stopping import RunStoppedError
from task import HEADS, build_model
from tests.fakes import CutOffError, cut_off_in, outcome_of, partitions, rounds_of, run_in_process

Arrays = dict[str, np.ndarray]
SETTINGS = {"model": "cnn", "image_size": 16, "clients": 3, "fraction_train": 1.0, "learning_rate": 0.05}
HEAD = {"fc.weight", "fc.bias"}


def write_weights(path: Path, seed: int) -> None:
    state = build_model("cnn", 9, seed=seed).state_dict()
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of initial weights for a cnn."""
    path = tmp_path / "weights.safetensors"
    write_weights(path, 77)
    return str(path)


def run(out: Path, data: Path, **changes: Any) -> Path:
    values = {**SETTINGS, "data_dir": str(data), "cache_dir": str(out / "cache"), **changes}
    return run_in_process(out, **values)


@dataclass(frozen=True)
class Visit:
    """One client's training: what it was sent, and what it sent back."""

    node_id: int
    received: Arrays
    sent: Arrays


def watching(visits: list[Visit], frozen: set[object] | None = None) -> Callable[[Message, Context], Message]:
    """The client; copies are made at once, since the server empties what it has read."""

    def handler(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            visits.append(Visit(context.node_id, arrays_of(message), arrays_of(reply)))
        if frozen is not None and keys.ABOUT in reply.content:
            frozen.add(reply.content.config_records[keys.ABOUT][keys.FROZEN])
        return reply

    return handler


def arrays_of(message: Message) -> Arrays:
    return {name: as_numpy(array).copy() for name, array in message.content.array_records[keys.ARRAYS].items()}


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"trainable": "head"}, HEAD),
        (
            {"trainable": "lora", "trainable_args": "rank=2 targets='conv*'"},
            HEAD | {f"conv{n}.parametrizations.weight.0.{part}" for n in (1, 2, 3) for part in "ab"},
        ),
        (
            {"trainable": "lora", "trainable_args": "rank=2 targets='conv3' freeze-a=true"},
            HEAD | {"conv3.parametrizations.weight.0.b"},
        ),
        (
            {"trainable": "head", "method": "co-teaching"},
            {f"networks.{number}.{name}" for number in (0, 1) for name in HEAD},
        ),
        (
            {"trainable": "head", "method": "xiao"},
            HEAD | {f"{HEADS}.{name}.{part}" for name, _ in XIAO_HEADS for part in ("weight", "bias")},
        ),
    ],
)
def test_only_what_trains_travels_and_is_saved(
    tmp_path: Path, tiny_sample: Path, weights: str, changes: dict[str, Any], shared: set[str]
) -> None:
    visits: list[Visit] = []
    frozen: set[object] = set()
    run_dir = run(tmp_path, tiny_sample, pretrained=weights, handler=watching(visits, frozen), **changes)
    assert len(visits) == 6
    assert all(set(visit.received) == set(visit.sent) == shared for visit in visits)
    checkpoint = load_checkpoint(run_dir / "checkpoints" / "round-00002.safetensors")
    assert set(checkpoint.model) == shared
    assert len(checkpoint.frozen) == 16
    assert frozen == {checkpoint.frozen}


def test_the_file_of_the_model_is_a_whole_network_with_adapters_merged(
    tmp_path: Path, tiny_sample: Path, weights: str
) -> None:
    run_dir = run(tmp_path, tiny_sample, pretrained=weights, trainable="lora", trainable_args="rank=2")
    whole = safetensors.torch.load_file(run_dir / "model.safetensors")
    plain = build_model("cnn", 14, seed=0)
    plain.load_state_dict(whole)
    checkpoint = load_checkpoint(run_dir / "checkpoints" / "round-00002.safetensors")
    spec = NetworkSpec("cnn", 14, image_size=16, seed=1, pretrained=weights, trainable="lora", trainable_args="rank=2")
    model = build(spec)
    state = model.state_dict()
    for name, value in checkpoint.model.items():
        state[name].copy_(torch.from_numpy(value.copy()))
    assert all(torch.equal(value, whole[name]) for name, value in plain_state(model).items())
    file = safetensors.torch.load_file(weights)
    assert not torch.equal(whole["conv2.weight"], file["conv2.weight"])
    assert torch.equal(whole["bn1.running_var"], file["bn1.running_var"])
    inputs = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain.eval()(inputs), model.eval()(inputs))


KINDS: dict[str, dict[str, Any]] = {
    "head": {"trainable": "head"},
    "lora": {"trainable": "lora", "trainable_args": "rank=2", "optimizer": "adamw", "learning_rate": 0.003},
    "frozen a": {"trainable": "lora", "trainable_args": "rank=2 freeze-a=true"},
    "fedbn": {"batchnorm": "local", "fraction_evaluate": 1.0},
    "frozen statistics": {"batchnorm": "frozen"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("visit", [2, 5])
def test_a_run_that_is_cut_off_ends_like_one_that_is_not(
    tmp_path: Path, tiny_sample: Path, weights: str, kind: str, visit: int
) -> None:
    changes = {"pretrained": weights, "num_server_rounds": 3, "fraction_train": 0.67, **KINDS[kind]}
    whole = run(tmp_path / "whole", tiny_sample, **changes)
    with pytest.raises(CutOffError):
        run(tmp_path / "cut", tiny_sample, handler=cut_off_in(visit), resume="auto", **changes)
    cut = run(tmp_path / "cut", tiny_sample, resume="auto", **changes)
    assert outcome_of(cut) == outcome_of(whole)


def test_other_frozen_weights_are_refused_when_a_run_resumes(tmp_path: Path, tiny_sample: Path, weights: str) -> None:
    changes = {"pretrained": weights, "trainable": "head"}
    run_dir = run(tmp_path, tiny_sample, **changes)
    write_weights(Path(weights), 78)
    with pytest.raises(ConfigError, match="'pretrained' must name the same weights as when that run began"):
        run(tmp_path, tiny_sample, resume=str(run_dir), num_server_rounds=3, **changes)


@pytest.mark.parametrize("resume", ["path", "auto"])
@pytest.mark.parametrize("kind", ["head", "frozen a"])
def test_the_file_of_frozen_weights_may_have_moved_when_a_run_resumes(
    tmp_path: Path, tiny_sample: Path, weights: str, kind: str, resume: str
) -> None:
    changes = {"num_server_rounds": 3, **KINDS[kind]}
    whole = run(tmp_path / "whole", tiny_sample, pretrained=weights, **changes)
    with pytest.raises(CutOffError):
        run(tmp_path / "cut", tiny_sample, pretrained=weights, handler=cut_off_in(4), **changes)
    moved = str(Path(weights).rename(tmp_path / "moved.safetensors"))
    how = str(tmp_path / "cut" / "run") if resume == "path" else resume
    cut = run(tmp_path / "cut", tiny_sample, pretrained=moved, resume=how, **changes)
    assert outcome_of(cut) == outcome_of(whole)
    [line] = (cut / "resumes.jsonl").read_text().splitlines()
    assert json.loads(line)["changed"] == {"pretrained": [weights, moved]}


def test_weights_that_only_began_a_run_stay_the_named_ones(tmp_path: Path, tiny_sample: Path, weights: str) -> None:
    run_dir = run(tmp_path, tiny_sample, pretrained=weights, num_server_rounds=1)
    moved = str(Path(weights).rename(tmp_path / "moved.safetensors"))
    run(tmp_path, tiny_sample, pretrained=weights, num_server_rounds=2, resume=str(run_dir))  # no longer needed
    with pytest.raises(ConfigError, match="'resume' needs the config of the resumed run, but 'pretrained' was "):
        run(tmp_path, tiny_sample, pretrained=moved, num_server_rounds=3, resume=str(run_dir))


def test_a_node_with_other_frozen_weights_is_left_out_and_may_name_its_own_file(
    tmp_path: Path, tiny_sample: Path, weights: str
) -> None:
    other = tmp_path / "other.safetensors"
    write_weights(other, 78)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(weights).read_bytes())
    nodes = partitions(3)
    nodes[0]["pretrained"] = str(copy)
    assert run(tmp_path / "fine", tiny_sample, pretrained=weights, trainable="head", nodes=nodes)
    nodes[0]["pretrained"] = str(other)
    wanted = (
        r"client \d has other frozen weights \(\w+\) than the server \(\w+\); 'pretrained', of the run or of the node,"
    )
    with pytest.raises(RunStoppedError, match=wanted):
        run(tmp_path / "bad", tiny_sample, pretrained=weights, trainable="head", nodes=nodes)
    nodes[0]["pretrained"] = str(tmp_path / "nowhere.safetensors")
    wanted = (
        r"client \d: node config: 'pretrained' is '.*nowhere.safetensors', which does not exist; it must be a file of"
    )
    with pytest.raises(RunStoppedError, match=wanted):
        run(tmp_path / "none", tiny_sample, pretrained=weights, trainable="head", nodes=nodes)


def test_privacy_clips_and_noises_nothing_but_what_trains(tmp_path: Path, tiny_sample: Path, weights: str) -> None:
    run_dir = run(
        tmp_path, tiny_sample, pretrained=weights, trainable="head", privacy="server-fixed",
        privacy_args="noise-multiplier=1.0 clipping-norm=3.0", num_server_rounds=1,
    )  # fmt: skip
    whole, file = (safetensors.torch.load_file(path) for path in (run_dir / "model.safetensors", weights))
    assert all(torch.equal(value, file[name]) for name, value in whole.items() if not name.startswith("fc."))
    fresh = build(NetworkSpec("cnn", 14, image_size=16, seed=1)).state_dict()["fc.weight"]
    noise = (whole["fc.weight"] - fresh).std()
    assert 0.7 < noise < 1.5  # z C / m = 1 for each weight of the mean of three, and at most 1 of update


def test_frozen_weights_that_change_after_the_roll_call_are_noticed(
    tmp_path: Path, tiny_sample: Path, weights: str
) -> None:
    def changing(message: Message, context: Context) -> Message:
        """A client whose process is another one than in the roll call, when the file has been written anew."""
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 1:
            write_weights(Path(weights), 78)
            kept_replica.cache_clear()
            reply = client_app(message, context)
            write_weights(Path(weights), 77)
            kept_replica.cache_clear()
            return reply
        return client_app(message, context)

    run_dir = run(tmp_path, tiny_sample, pretrained=weights, trainable="head", handler=changing, num_server_rounds=1)
    (failure,) = (run_dir / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert "are no longer those of the run" in failure
    assert rounds_of(run_dir)[0]["failed-partitions"] == [1]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (5, "node config: 'pretrained' is 5; it must be the absolute path"),
        ("/nope/x.safetensors", "node config: 'pretrained' is '/nope/x.safetensors', which does not exist"),
    ],
)
def test_a_nodes_own_file_is_named_as_such(
    tmp_path: Path, tiny_sample: Path, weights: str, value: object, wanted: str
) -> None:
    nodes = [{**node, "pretrained": value} for node in partitions(3)]
    with pytest.raises(RunStoppedError, match=wanted):
        run(tmp_path, tiny_sample, pretrained=weights, trainable="head", nodes=nodes)
