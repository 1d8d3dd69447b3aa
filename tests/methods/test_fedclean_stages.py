"""FedClean in whole visits and runs: every stage, killed and resumed within and between them, and what is counted."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from config.run_config import RunConfig
from data.sealed import read_sealed
from data.whole_files import round_of
from learning.network import NetworkSpec, build
from learning.training import TrainingReport, train_locally
from methods.fedclean import CLEAN, DONE, DOUBT, INFERRED, FedClean
from task import Compute, derived_generator
from tests.client_app.test_counted_work import CountedOperations
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (25, 32, 32, 3), generator=derived_generator(1, "images"), dtype=torch.uint8)
LABELS = torch.arange(25) % 4
CONFIG = RunConfig(
    model="cnn", image_size=32, batch_size=6, local_epochs=2, learning_rate=0.05, drop_last=False, num_server_rounds=10
)
SHORT = FedClean(alone_epochs=3)


def _visit(method: FedClean = SHORT, server_round: int = 1, after: Any = None, **changes: Any) -> TrainingReport:
    config = replace(CONFIG, **changes)
    model = build(NetworkSpec.of(config, method, 5))
    return train_locally(
        model, IMAGES, LABELS, method, config, CPU, derived_generator(1, "t", server_round), server_round=server_round,
        state=None if after is None else after.state, relabelled=None if after is None else after.corrected,
    )  # fmt: skip


@pytest.mark.parametrize("learner", ["joint-optimization", "co-teaching"])
def test_a_first_visit_trains_alone_and_can_be_repeated(learner: str) -> None:
    """As a client does that was killed before its reply, or whose state is lost."""
    method = FedClean(learner=learner, alone_epochs=3)
    first, again = _visit(method), _visit(method)
    assert first.epoch_losses == again.epoch_losses
    for name, value in first.visit.state.items():
        assert torch.equal(value, again.visit.state[name]), name
    used = first.visit.used
    assert used is not None
    assert first.images_seen == again.images_seen == 3 * 25 + 2 * used
    later = _visit(method, 2, first.visit)
    assert later.images_seen == 2 * used
    assert later.visit.used == used
    lost = _visit(method, 2)
    assert lost.visit.used is not None
    assert lost.images_seen == 3 * 25 + 2 * lost.visit.used


def test_a_first_visit_of_a_whole_client_by_its_own_learner() -> None:
    """D^c is where the learner, asked by hand in the same visit, agrees."""
    visit = _visit().visit
    state = visit.state
    assert torch.equal(state[CLEAN], state[INFERRED] == LABELS)
    assert visit.suspected is not None
    assert torch.equal(visit.suspected, ~state[CLEAN])
    assert state[DOUBT].dtype is torch.float32
    assert state[DONE].tolist() == [1]
    assert {name: value.shape for name, value in state.items()} == {
        INFERRED: (25,), CLEAN: (25,), DOUBT: (25,), DONE: (1,)
    }  # fmt: skip


def _judged(clean: int, stage: int = 1) -> Any:
    """What a visit left that found the first images clean, and would call the others 4."""
    rows = torch.arange(25)
    state: dict[str, Tensor] = {
        INFERRED: LABELS.where(rows < clean, 4),
        CLEAN: rows < clean,
        DOUBT: torch.zeros(25),
        DONE: torch.tensor([stage]),
    }
    return type("After", (), {"state": state, "corrected": LABELS})


@pytest.mark.parametrize("batchnorm", ["average", "frozen"])
def test_one_image_beside_full_batches_trains_with_batchnorm(batchnorm: str) -> None:
    """A ResNet leaves one pixel of 32 x 32, of which BatchNorm needs two images: thirteen are 6 + 7."""
    report = _visit(after=_judged(13), model="resnet18", batchnorm=batchnorm, local_epochs=1)
    assert report.images_seen == report.visit.used == 13
    dropped = _visit(after=_judged(13), model="resnet18", drop_last=True, local_epochs=1)
    assert (dropped.images_seen, dropped.visit.used) == (12, 13)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize("learner", ["joint-optimization", "co-teaching"])
def test_a_frozen_body_is_trained_by_its_head(tmp_path: Path, tiny_sample: Path, mixup: float, learner: str) -> None:
    """On features if no images are mixed, in all stages."""
    run_dir = _run(
        tmp_path, tiny_sample, trainable="head", augmentation="none", fraction_train=1.0, num_server_rounds=3,
        method_args=f"alone-epochs=2 mixup={mixup} learner='{learner}'",
    )  # fmt: skip
    lines = rounds_of(run_dir)
    assert all(line["failed-partitions"] == [] for line in lines)
    assert lines[0]["images-seen"] == 2 * 120 + lines[0]["num-examples"]


def test_steps_do_not_wait_for_the_device() -> None:
    """An epoch does, alone or not; beside that only what is judged once, however many batches there are."""
    counts = []
    for batch_size in (25, 4):
        with CountedOperations() as operations:
            _visit(server_round=9, batch_size=batch_size, image_size=32, drop_last=True)
        counts.append(operations.counts["aten::_local_scalar_dense"])
    assert counts[0] == counts[1]


TINY: dict[str, Any] = {
    "model": "cnn", "image_size": 16, "val_split": "none", "drop_last": False, "num_server_rounds": 6,
    "method_args": "alone-epochs=2 first-stage-rounds=2 second-stage-rounds=2", "learning_rate": 0.05,
}  # fmt: skip


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), method="fedclean", **{**TINY, **changes})


@pytest.fixture(scope="module")
def undisturbed(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of four clients in each of six rounds, two of each stage."""
    return _run(tmp_path_factory.mktemp("undisturbed"), tiny_sample)


def test_a_run_goes_through_all_stages(undisturbed: Path) -> None:
    lines = rounds_of(undisturbed)
    assert all(line["failed-partitions"] == [] for line in lines)
    stages = {}
    for path in undisturbed.glob("state/*/*/round-*"):  # the last three of each client
        _, arrays = read_sealed(path, "clothing1m-fl client state 2")
        number, done = round_of(path.name), int(arrays[f"state/{DONE}"][0])
        assert number is not None
        assert done == 1 + (number > 2) + (number > 4)
        stages[number] = done
        assert arrays[f"state/{CLEAN}"][arrays["corrected"] != arrays["given"]].all()
    assert (stages[5], stages[6]) == (3, 3)


def test_the_mean_weighs_what_was_trained_on(undisturbed: Path) -> None:
    """30 images each: those that are used, and after their first visits nothing else, go through the steps."""
    lines = rounds_of(undisturbed)
    assert all(2 <= line["num-examples"] <= 60 for line in lines)
    seen = [line["images-seen"] - line["num-examples"] for line in lines]
    assert all(more in (0, 60, 120) for more in seen)  # two epochs alone of nobody, of one client, of both
    assert sum(seen) in (60 * 2, 60 * 3, 60 * 4)
    assert seen[0] == 120


@pytest.mark.parametrize(
    "message", [2, 5, 6, 8, 9, 12], ids=["stage 1", "stage 2 begins", "and half did", "its end", "stage 3", "the end"]
)
def test_a_run_cut_off_in_any_stage_ends_the_same(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, message: int
) -> None:
    """Two messages a round: the first of a stage is its boundary, in the second one client has judged in vain."""
    cut = partial(_run, tmp_path, tiny_sample, resume="auto")
    with pytest.raises(CutOffError):
        cut(handler=cut_off_in(message))
    assert len(rounds_of(tmp_path / "run")) == (message - 1) // 2
    assert outcome_of(cut()) == outcome_of(undisturbed)


def test_a_client_that_lost_its_state_begins_again(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, clients=1, fraction_train=1.0, handler=cut_off_in(6), resume="auto")
    for path in tmp_path.glob("run/state/*/*/round-*"):
        path.unlink()
    lines = rounds_of(_run(tmp_path, tiny_sample, clients=1, fraction_train=1.0, resume="auto"))
    alone = [line["images-seen"] - line["num-examples"] for line in lines]
    assert alone == [240, 0, 0, 0, 0, 240]


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": "server-fixed", "privacy_args": "noise-multiplier=0.1 clipping-norm=1.0"},
        {"precision": "bf16", "payload": "bf16", "method_args": "alone-epochs=1 learner='co-teaching'"},
    ],
    ids=["private", "bf16"],
)
def test_with_private_updates_and_in_half_precision(tmp_path: Path, tiny_sample: Path, changes: dict[str, Any]) -> None:
    settings = {"num_server_rounds": 3, "method_args": "alone-epochs=1", "clients": 2, **changes}
    lines = rounds_of(_run(tmp_path, tiny_sample, **settings))
    assert all(line["failed-partitions"] == [] for line in lines)
    assert np.isfinite([line["test-loss"] for line in lines]).all()
