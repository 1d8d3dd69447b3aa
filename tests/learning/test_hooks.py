"""The hooks of a method in the training loop, each with a method that does nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.client_state import CORRECTED, GIVEN
from config.run_config import RunConfig
from data.sealed import read_sealed
from learning.inference import features_of
from learning.method import Batch, Method, Seen, Step, Visit
from learning.own_network import follow
from learning.training import TrainingReport, train_locally
from methods import METHODS
from methods.ce import CE
from task import Compute, build_model, classifier, derived_generator, networks_of
from tests.fakes import rounds_of, run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (20, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 5


def _train(method: Method, model: torch.nn.Module | None = None, **more: Any) -> TrainingReport:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.01, drop_last=False)
    model = build_model("cnn", 5, seed=1, networks=method.networks) if model is None else model
    changes = {key: more.pop(key) for key in ("batch_size", "drop_last") if key in more}
    return train_locally(
        model, IMAGES, LABELS, method, replace(config, **changes), CPU, derived_generator(1, "test"), **more
    )


@dataclass(frozen=True)
class Halved(CE):
    """Halves what the network sees, and adds a view."""

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        visit.scratch.setdefault("seen", []).append(seen)
        return [seen.inputs[0] / 2, seen.inputs[0][:1]]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        visit.scratch.setdefault("batches", []).append(batch)
        return super().loss(batch, visit)


def test_a_network_is_trained_on_what_a_method_mixes() -> None:
    model = build_model("cnn", 5, seed=1)
    expected = build_model("cnn", 5, seed=1).train()
    report = _train(Halved(), model, batch_size=20)
    seen, batch = report.visit.scratch["seen"][0], report.visit.scratch["batches"][0]
    assert torch.equal(batch.views[0][0].inputs, seen.inputs[0] / 2)
    assert torch.equal(batch.views[0][0].logits, expected(seen.inputs[0] / 2))
    assert [len(view.logits) for view in batch.views[0]] == [20, 1]
    assert torch.equal(batch.rows, seen.rows)
    assert torch.equal(seen.labels, LABELS[seen.rows])
    assert (seen.network, seen.sizes) == (0, (20,))


@dataclass(frozen=True)
class Choosy(CE):
    """Trains in the first epoch on rows 0 to 5 beside row 19, in the second on all."""

    passes = 2

    def steps(self, visit: Visit) -> Sequence[Step]:
        visit.scratch.setdefault("epochs", []).append(visit.epoch)
        if visit.epoch == 2:
            return super().steps(visit)
        return [Step((rows, torch.tensor([19]))) for rows in visit.batches(torch.arange(6))]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        visit.scratch.setdefault("batches", []).append(batch)
        return super().loss(batch, visit)


def test_a_method_chooses_which_images_train_and_in_which_groups() -> None:
    report = _train(Choosy())
    batches = report.visit.scratch["batches"]
    assert report.visit.scratch["epochs"] == [1, 2]
    assert [batch.sizes for batch in batches] == [(4, 1), (2, 1)] + [(4,)] * 5
    assert sorted(torch.cat([batch.rows for batch in batches[:2]]).tolist()) == [0, 1, 2, 3, 4, 5, 19, 19]
    assert [int(batch.rows[-1]) for batch in batches[:2]] == [19, 19]
    assert all(torch.equal(batch.labels, LABELS[batch.rows]) for batch in batches)
    assert report.images_seen == 8 + 20
    plain = _train(CE(), batch_size=20).visit  # the images of both groups are those of their rows
    assert plain.inference is not None
    every = torch.cat([plain.inference.inputs(part)[0] for part in plain.inference.images.in_order(20)])
    assert all(torch.equal(batch.views[0][0].inputs, every[batch.rows]) for batch in batches)


def test_batches_of_a_visit() -> None:
    visit = Visit(torch.arange(10), 10, batch_size=4, drop_last=True)
    assert [len(rows) for rows in visit.batches()] == [4, 4]
    assert sorted(torch.cat(visit.batches(torch.tensor([3, 5, 7]))).tolist()) == [3, 5, 7]  # the only one stays
    assert visit.batches(torch.arange(0)) == []


@dataclass(frozen=True)
class Undecided(CE):
    def steps(self, visit: Visit) -> Sequence[Step]:
        return []


def test_a_client_that_chooses_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="Undecided chose no image for local epoch 1; one must be left"):
        _train(Undecided())


@dataclass(frozen=True)
class OneOfTwo(CE):
    """Trains the second network alone."""

    networks = 2

    def steps(self, visit: Visit) -> Sequence[Step]:
        return [Step((rows,), network=1) for rows in visit.batches()]

    def end_step(self, visit: Visit) -> None:
        visit.scratch["steps"] = visit.scratch.get("steps", 0) + 1


def test_a_step_may_train_one_of_two_networks() -> None:
    model, fresh = (build_model("cnn", 5, seed=1, networks=2) for _ in range(2))
    report = _train(OneOfTwo(), model)
    moved = [
        any(not torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
        for one, other in zip(networks_of(model), networks_of(fresh), strict=True)
    ]
    assert moved == [False, True]  # neither weights nor BatchNorm's statistics of the other
    assert report.visit.scratch["steps"] == 10


@dataclass(frozen=True)
class Relabelling(CE):
    """Adds one to each label at the end of a visit; at the next, what it trains on shows."""

    remembers = corrects = relabels = True

    def end(self, visit: Visit) -> None:
        visit.state["trained on"] = visit.labels.clone()
        visit.labels.add_(1).remainder_(visit.num_classes)


def test_relabelled_images_keep_their_new_labels() -> None:
    first = _train(Relabelling()).visit
    assert torch.equal(first.given, LABELS)
    assert first.corrected is not None
    assert torch.equal(first.corrected, (LABELS + 1) % 5)
    second = _train(Relabelling(), state=first.state, relabelled=first.corrected).visit
    assert torch.equal(second.state["trained on"], (LABELS + 1) % 5)
    assert torch.equal(second.labels, (LABELS + 2) % 5)
    assert torch.equal(second.given, LABELS)


def test_relabelled_images_in_a_whole_run(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own file holds them; they are scored, and a next visit trains on them."""
    monkeypatch.setitem(METHODS, "ce", Relabelling)
    run_dir = run_in_process(
        tmp_path, clients=1, data_dir=str(tiny_sample), model="cnn", image_size=16, fraction_train=1.0, val_split="none"
    )
    files = sorted(run_dir.glob("state/*/client-00000/round-*"))
    for number, file in enumerate(files, 1):
        _, arrays = read_sealed(file, "clothing1m-fl client state 2")
        assert np.array_equal(arrays[CORRECTED], (arrays[GIVEN] + number) % 14)
        assert np.array_equal(arrays["state/trained on"], (arrays[GIVEN] + number - 1) % 14)
    assert len(files) == 2
    lines = rounds_of(run_dir)
    assert lines[0]["label-accuracy"] == lines[1]["label-accuracy"] > lines[0]["corrected-label-accuracy"]


@dataclass(frozen=True)
class Following(CE):
    """Keeps the mean of the networks that it has seen."""

    remembers = keeps_network = True

    def end_step(self, visit: Visit) -> None:
        assert visit.own is not None
        follow(visit.own, visit.networks[0], decay=0.75)


def test_a_client_keeps_a_network_of_its_own() -> None:
    model = build_model("cnn", 5, seed=1)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    first = _train(Following(), model, batch_size=20)
    own = first.visit.own
    assert own is not None
    assert not own.training
    assert not any(parameter.requires_grad for parameter in own.parameters())
    assert {name for name in first.visit.state if name.startswith("own/")} == {f"own/{name}" for name in start}
    # Two steps from w_0 to w_2: own is 9/16 w_0 + 3/16 w_1 + 4/16 w_2, so it lies between the ends.
    name = "fc.weight" if "fc.weight" in start else next(iter(start))
    assert not torch.equal(own.state_dict()[name], start[name])
    assert not torch.equal(own.state_dict()[name], model.state_dict()[name])

    again = _train(Following(), build_model("cnn", 5, seed=2), batch_size=20, state=first.visit.state)
    other = build_model("cnn", 5, seed=2).state_dict()[name]
    resumed = again.visit.own
    assert resumed is not None
    assert torch.dist(resumed.state_dict()[name], start[name]) < torch.dist(resumed.state_dict()[name], other)


def test_following_is_an_exponential_mean() -> None:
    own, network = (build_model("resnet18", 3, seed=seed) for seed in (1, 2))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    for value in network.state_dict().values():
        value.add_(1)
    follow(own, network, 0.9)
    for name, value in own.state_dict().items():
        theirs = network.state_dict()[name]
        expected = 0.9 * before[name] + 0.1 * theirs if value.is_floating_point() else theirs
        assert torch.allclose(value, expected.to(value.dtype), atol=1e-6), name


@dataclass(frozen=True)
class Few(CE):
    """Counts as many images as its partition's number says."""

    def end(self, visit: Visit) -> None:
        visit.used = int(visit.labels.sum()) % 7 + 1


def test_a_client_weighs_as_many_images_as_it_used(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "data_dir": str(tiny_sample), "model": "cnn", "image_size": 16, "fraction_train": 1.0, "num_server_rounds": 1,
        "val_split": "none",
    }  # fmt: skip
    held = rounds_of(run_in_process(tmp_path / "held", **settings))[0]
    monkeypatch.setitem(METHODS, "ce", Few)
    used = rounds_of(run_in_process(tmp_path / "used", **settings))[0]
    assert 4 <= used["num-examples"] <= 28 < held["num-examples"]
    assert used["test-loss"] != held["test-loss"]  # the weights of the mean differ


def test_further_heads_are_not_the_classifier() -> None:
    plain, model = build_model("resnet18", 5, seed=1), build_model("resnet18", 5, seed=1, heads=(("types", 3),))
    assert classifier(model).out_features == 5
    assert set(model.state_dict()) - set(plain.state_dict()) == {
        "further_heads.types.weight",
        "further_heads.types.bias",
    }
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    inputs = torch.rand(2, 3, 32, 32)
    with features_of(model, wanted=True) as features:
        logits = model.eval()(inputs)
    assert torch.equal(logits, plain.eval()(inputs))
    types = model.get_submodule("further_heads.types")(features[0])
    assert types.shape == (2, 3)
