"""A server half that trains the global model: when, on what, who gets the result, and what may go wrong."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import Context, Message
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.errors import BadImageError
from data.release import LIST_FILES, open_release
from learning.method import Batch, Method, ServerHalf, Visit
from learning.server_half import Workbench
from learning.training import train_locally
from methods import METHODS
from server_app.checkpoint_file import load_checkpoint
from server_app.clean_sets import CleanSet, load_list
from server_app.server_training import own_list
from server_app.stopping import RunStoppedError
from task import Compute
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
STEP = 0.25  # that the server adds to a bias in each round; exact in float32
HAPPENED: list[str] = []


@dataclass(frozen=True)
class Nudged(Method):
    """Clients whose loss is 0, so that only the server changes the weights."""

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return batch.logits.sum() * 0

    def on_server(self) -> ServerHalf:
        return Nudging()


class Nudging(ServerHalf):
    trains: ClassVar[bool] = True

    def __init__(self) -> None:
        self._trained: list[int] = []

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        HAPPENED.append(f"heard {server_round}")

    def train(self, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        HAPPENED.append(f"train {server_round}")
        self._trained.append(server_round)
        with torch.no_grad():
            model.get_parameter("fc.bias").add_(1.0 if server_round == 0 else STEP)

    def state(self) -> dict[str, np.ndarray]:
        HAPPENED.append("state")
        return {"trained": np.array(self._trained)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._trained = state["trained"].tolist()


@dataclass(frozen=True)
class Supervised(Method):
    """Cross-entropy, on clients and on the server, whose list is clean train."""

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)

    def on_server(self) -> ServerHalf:
        return Supervising()


class Supervising(ServerHalf):
    trains: ClassVar[bool] = True

    def train(self, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        HAPPENED.append(f"train {server_round}")
        own, generator = workbench.own_list("clean_train"), workbench.generator(server_round, "supervised")
        self._report = train_locally(
            model, own.images, own.labels, Supervised(), workbench.config, workbench.compute, generator
        )

    def metrics(self, server_round: int) -> dict[str, float]:
        return {"server-loss": self._report.epoch_losses[-1]}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    HAPPENED.clear()
    monkeypatch.setitem(METHODS, "sce", Nudged)
    monkeypatch.setitem(METHODS, "ce", Supervised)


def _settings(sample: Path, **changes: Any) -> dict[str, Any]:
    fixed = {"model": "cnn", "image_size": 16, "num_server_rounds": 3, "fraction_train": 0.5, "weight_decay": 0.0}
    return {"data_dir": str(sample), **fixed, **changes}


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, **_settings(sample, **changes))


def _bias(run_dir: Path) -> np.ndarray:
    bias: np.ndarray = safetensors.numpy.load_file(run_dir / "model.safetensors")["fc.bias"]
    return bias


def _sent(into: list[np.ndarray]) -> Any:
    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            into.append(message.content.array_records["arrays"]["fc.bias"].numpy())
        return client_app(message, context)

    return handler


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedexp", "fedmedian", "krum"])
def test_the_change_arrives_at_clients_and_in_the_model(tmp_path: Path, tiny_sample: Path, strategy: str) -> None:
    """Strategies that compare with the model that they sent must mean the one after training: clients change nothing,
    so neither may they, round after round.
    """
    sent: list[np.ndarray] = []
    args = "server-momentum=0.5" if strategy == "fedavgm" else ""
    run_dir = _run(
        tmp_path, tiny_sample, method="sce", strategy=strategy, strategy_args=args, handler=_sent(sent),
        fraction_train=1.0,
    )  # fmt: skip
    final = _bias(run_dir)
    kept = load_checkpoint(run_dir / "checkpoints" / "round-00003.safetensors").model["fc.bias"]
    assert np.array_equal(kept, final)
    for number, bias in enumerate(sent):  # four clients in each of three rounds
        np.testing.assert_allclose(final - bias, STEP * (3 - number // 4), atol=1e-6)


def test_it_happens_after_aggregation_and_before_checkpoint_and_evaluation(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[np.ndarray] = []
    evaluate = CleanSet.evaluate

    def counted(self: CleanSet, arrays: Any) -> Any:
        HAPPENED.append("evaluated")
        evaluated.append(arrays["fc.bias"].numpy().copy())
        return evaluate(self, arrays)

    monkeypatch.setattr(CleanSet, "evaluate", counted)
    run_dir = _run(tmp_path, tiny_sample, method="sce", val_split="none")
    expected = ["train 0"]
    for number in (1, 2, 3):
        expected += [f"heard {number}", f"train {number}", "state", "evaluated"]
    assert expected == HAPPENED
    for bias, left in zip(evaluated, (2, 1, 0), strict=True):
        assert np.array_equal(bias, _bias(run_dir) - STEP * left)
    state = load_checkpoint(run_dir / "checkpoints" / "round-00003.safetensors").method
    assert state["trained"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
@pytest.mark.parametrize("message", [1, 2, 4])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, message: int, strategy: str
) -> None:
    """In round 1, which repeats the training before it, and later, which does not."""
    changes = {"strategy": strategy, "augmentation": "crop-flip"}
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample, **changes))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message), resume="auto", **changes)
    HAPPENED.clear()
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto", **changes)) == expected
    first = (message + 1) // 2  # two clients a round
    assert [f"train {number}" for number in range(0 if first == 1 else first, 4)] == HAPPENED


@pytest.mark.parametrize("killed_in", [0, 2])
def test_a_run_that_is_cut_off_while_the_server_trains(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample))
    train = Supervising.train

    def killed(self: Supervising, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        train(self, server_round, model, workbench)
        if server_round == killed_in:
            raise CutOffError

    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(Supervising, "train", killed)
        _run(tmp_path / "cut", tiny_sample, resume="auto")
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto")) == expected


def test_the_list_is_decoded_once_and_has_both_labels(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(*args: Any) -> Any:
        decoded.append(args[1:3])
        return load_list(*args)

    monkeypatch.setattr("server_app.server_training.load_list", counted)
    _run(tmp_path, tiny_sample, augmentation="crop-flip")
    assert decoded == [("clean_train", 18)]
    release = open_release(tiny_sample)
    own = own_list(release, RunConfig(image_size=16), CPU, "clean_train")
    assert own.images.shape == (20, 16, 16, 3)
    assert np.array_equal(own.labels, release.split("clean_train").labels)
    keys, _, noisy = release.double_labelled(["clean_train"])
    labelled = dict(zip(keys.tolist(), noisy.tolist(), strict=True))
    assert own.noisy.tolist() == [labelled.get(key, -1) for key in release.split("clean_train").keys.tolist()]
    assert 2 < len(labelled) < 20


def test_bad_images_of_the_list_are_refused_or_left_out(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    path = root / (root / LIST_FILES["clean_train"]).read_text().splitlines()[4]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadImageError, match="with 'bad-images' as 'skip', a new run leaves it out"):
        _run(tmp_path / "refused", root)
    release, config = open_release(root), RunConfig(image_size=16, bad_images="skip")
    whole = own_list(open_release(tiny_sample), config, CPU, "clean_train")
    with caplog.at_level(logging.INFO, "flwr"):
        own = own_list(release, config, CPU, "clean_train")
    left = np.delete(np.arange(20), 4)
    assert torch.equal(own.labels, whole.labels[left])
    assert torch.equal(own.noisy, whole.noisy[left])
    (pixels,), (expected,) = (list(images.in_order(20)) for images in (own.images, whole.images))
    assert torch.equal(pixels, expected[left])
    assert "The server trains on 19 images of clean_train." in caplog.text
    assert len(rounds_of(_run(tmp_path / "skipped", root, bad_images="skip"))) == 3


@pytest.mark.parametrize("change", ["another label", "another list"])
def test_a_resumed_run_must_have_the_same_lists(tmp_path: Path, tiny_sample: Path, change: str) -> None:
    run_dir = _run(tmp_path, tiny_sample, val_split="none", num_server_rounds=1)
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    train, val = root / LIST_FILES["clean_train"], root / LIST_FILES["clean_val"]
    if change == "another list":  # all keys and labels are there, in the same order
        *kept, last = train.read_text().splitlines()
        train.write_text("\n".join(kept) + "\n")
        val.write_text(f"{last}\n{val.read_text()}")
    else:
        key = train.read_text().splitlines()[0]
        labels = root / "clean_label_kv.txt"
        lines = [f"{key} 13" if line.startswith(key) else line for line in labels.read_text().splitlines()]
        assert lines != labels.read_text().splitlines()
        labels.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match="one of the lists in the server's 'data-dir' has changed since"):
        _run(tmp_path, root, val_split="none", num_server_rounds=2, resume=str(run_dir))


@pytest.mark.parametrize(
    ("broken_in", "sentence"),
    [
        (0, "before round 1: the new global model holds a value that is not finite ('fc.bias'), after training on the"),
        (
            2,
            "round 2: the new global model holds a value that is not finite ('fc.bias'), after training on the server;",
        ),
    ],
)
def test_weights_that_are_not_finite_stop_the_run_at_once(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, broken_in: int, sentence: str
) -> None:
    def broken(self: Nudging, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        if server_round == broken_in:
            nn.init.constant_(model.get_parameter("fc.bias"), np.nan)

    monkeypatch.setattr(Nudging, "train", broken)
    with pytest.raises(RunStoppedError) as caught:
        _run(tmp_path, tiny_sample, method="sce")
    assert str(caught.value).startswith(sentence)
    assert len(rounds_of(tmp_path / "run")) == max(0, broken_in - 1)


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(RunStoppedError, match=r"^before round 1: training on the server: the loss became (nan|inf) in"):
        _run(tmp_path, tiny_sample, learning_rate=1e9, local_epochs=20)


def test_the_time_and_the_loss_are_in_each_line(tmp_path: Path, tiny_sample: Path) -> None:
    for line in rounds_of(_run(tmp_path, tiny_sample)):
        assert 0 < line["server-training-seconds"] < line["exchange-seconds"]
        spent = line["exchange-seconds"] - line["server-training-seconds"]
        assert line["images-per-second"] == pytest.approx(line["images-seen"] / spent, rel=0.2)
        assert 0 < line["server-loss"] < 10


def test_whoever_does_not_train_has_no_such_time(finished_run: Path) -> None:
    assert "server-training-seconds" not in rounds_of(finished_run)[0]
