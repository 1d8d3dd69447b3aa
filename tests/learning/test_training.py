"""One client's training against loops written independently, bit for bit."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from config.run_config import RunConfig
from learning.augmentation import augment, stored_size
from learning.training import ProximalTerm, train_locally
from methods.ce import CE
from simulation.share import has_room
from task import Compute, build_model, derived_generator
from tests.batches_of import batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)


def _images(count: int, side: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 5, count))


def _config(**values: Any) -> RunConfig:
    settings = {"model": "resnet18", "image_size": 32, "batch_size": 8, "local_epochs": 2, "learning_rate": 0.01}
    return RunConfig(**{**settings, **values})


def _assert_same_state(one: nn.Module, other: nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def _normalized(images: torch.Tensor) -> torch.Tensor:
    """What torchvision's ToTensor and Normalize do, for a whole batch."""
    scaled = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return ((scaled - mean) / deviation).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("drop_last", [True, False])
def test_training_equals_a_plain_loop_bit_for_bit(drop_last: bool) -> None:
    images, labels = _images(29)
    model = build_model("resnet18", 5, seed=3)
    plain = copy.deepcopy(model)
    config = _config(drop_last=drop_last)
    report = train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "test"))

    generator = derived_generator(1, "test")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    plain.train()
    losses = []
    for _ in range(2):
        order = torch.randperm(29, generator=generator)
        batches = [order[:8], order[8:16], order[16:24]] + ([] if drop_last else [order[24:]])
        epoch = []
        for rows in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(plain(_normalized(images[rows])), labels[rows])
            loss.backward()
            optimizer.step()
            epoch += [loss.item()] * len(rows)
        losses.append(sum(epoch) / len(epoch))
    _assert_same_state(model, plain)
    assert report.epoch_losses == pytest.approx(losses, rel=1e-6)
    assert report.images_seen == (48 if drop_last else 58)


def test_the_notebook_preset_takes_the_notebooks_steps() -> None:
    """The notebook rebuilds SGD(momentum=0.9) for every batch; the preset's momentum 0 must be the same bit for bit."""
    images, labels = _images(24)
    model = build_model("resnet18", 5, seed=3)
    notebook = copy.deepcopy(model)
    train_locally(model, images, labels, CE(), _config(momentum=0.0), CPU, derived_generator(1, "test"))

    generator = derived_generator(1, "test")
    notebook.train()
    for _ in range(2):
        order = torch.randperm(24, generator=generator)
        for rows in order.split(8):
            optimizer = torch.optim.SGD(notebook.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            optimizer.zero_grad()
            nn.functional.cross_entropy(notebook(_normalized(images[rows])), labels[rows]).backward()
            optimizer.step()
    _assert_same_state(model, notebook)


def test_momentum_acts_across_batches_and_not_across_visits() -> None:
    images, labels = _images(16)
    models = [build_model("resnet18", 5, seed=3) for _ in range(2)]
    for model, momentum in zip(models, (0.0, 0.9), strict=True):
        config = _config(momentum=momentum, local_epochs=1)
        train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "test"))
    assert not torch.equal(models[0].fc.weight, models[1].fc.weight)  # type: ignore[union-attr,arg-type]

    one_visit, two_visits = build_model("resnet18", 5, seed=3), build_model("resnet18", 5, seed=3)
    first, second = images[:8], images[8:]
    for part, part_labels in ((first, labels[:8]), (second, labels[8:])):
        train_locally(two_visits, part, part_labels, CE(), _config(local_epochs=1), CPU, derived_generator(1, "t"))
    generator = derived_generator(1, "t")
    order = [torch.randperm(8, generator=derived_generator(1, "t")) for _ in range(2)]
    del generator
    one_visit.train()
    for part, part_labels, rows in ((first, labels[:8], order[0]), (second, labels[8:], order[1])):
        optimizer = torch.optim.SGD(one_visit.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        nn.functional.cross_entropy(one_visit(_normalized(part[rows])), part_labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    _assert_same_state(one_visit, two_visits)


def test_bf16_stays_near_fp32() -> None:
    """Losses within 5 %, and the update within 25 % of its length, for two steps of a network with random weights."""
    images, labels = _images(16)
    start = build_model("resnet18", 5, seed=3)
    losses, updates = [], []
    for dtype in (torch.float32, torch.bfloat16):
        model = copy.deepcopy(start)
        compute = Compute(torch.device("cpu"), dtype)
        report = train_locally(model, images, labels, CE(), _config(local_epochs=1), compute, derived_generator(1, "t"))
        assert all(value.dtype is not torch.bfloat16 for value in model.state_dict().values())
        losses.append(report.epoch_losses[0])
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        updates.append(torch.cat([(new - old).flatten() for new, old in pairs]).detach())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert (updates[1] - updates[0]).norm() < 0.25 * updates[0].norm()


def test_a_loss_that_explodes_is_reported() -> None:
    images, labels = _images(16)
    config = _config(learning_rate=1e9, local_epochs=3)
    with pytest.raises(FloatingPointError, match=r"local epoch [123]; a smaller learning-rate than 1e\+09"):
        train_locally(build_model("resnet18", 5, seed=3), images, labels, CE(), config, CPU, derived_generator(1, "t"))


def test_crops_and_flips_are_those_of_the_image() -> None:
    assert stored_size("crop-flip", 224) == 256
    assert stored_size("flip", 224) == 224
    images, _ = _images(6, side=8)
    out = augment(images, "crop-flip", 7, derived_generator(1, "x"))
    assert out.shape == (6, 7, 7, 3)
    for image, result in zip(images, out, strict=True):
        windows = [image[top : top + 7, left : left + 7] for top in range(2) for left in range(2)]
        assert any(torch.equal(result, window) or torch.equal(result, window.flip(1)) for window in windows)
    assert torch.equal(augment(images, "none", 8, derived_generator(1, "x")), images)
    flipped = augment(images, "flip", 8, derived_generator(1, "x"))
    mirrored = [torch.equal(a, b.flip(1)) for a, b in zip(images, flipped, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(images, flipped, strict=True)]
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_the_proximal_term_leaves_out_what_the_loss_does_not_reach() -> None:
    """w = (1, 2), w_t = 0, mu = 0.5: (0.5, 1) are added to the gradient."""
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1)])
    reached: nn.Parameter = model[0].weight  # type: ignore[assignment]
    with torch.no_grad():
        reached.zero_()
    term = ProximalTerm(model, 0.5)
    with torch.no_grad():
        reached.copy_(torch.tensor([[1.0, 2.0]]))
    reached.grad = torch.tensor([[3.0, 4.0]])
    term.add_gradient()
    assert reached.grad.tolist() == [[3.5, 5.0]]
    assert all(parameter.grad is None for parameter in model[1].parameters())


def test_label_smoothing_by_hand() -> None:
    """Logits (0, ln 3): p = (1/4, 3/4); label 1, s = 0.2: q = (0.1, 0.9)."""
    logits = torch.tensor([[0.0, np.log(3.0)]], dtype=torch.float64)
    expected = -(0.1 * np.log(0.25) + 0.9 * np.log(0.75))
    label = torch.tensor([1])
    loss = CE(label_smoothing=0.2).loss(batch_of(label, logits), visit_of(label, 2))
    assert loss.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="label-smoothing must be"):
        CE(label_smoothing=1.0)


def test_images_stay_on_the_gpu_if_they_leave_enough_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_room(1, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1200, 9999))
    assert has_room(600, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1199, 9999))
    assert not has_room(600, torch.device("cuda"))


def test_the_small_network_learns_and_two_visits_alike_end_at_the_same_bits() -> None:
    images, labels = _images(40)
    images = images // 8 + (labels * 40).to(torch.uint8)[:, None, None, None]  # darker or brighter by class
    config = _config(model="cnn", batch_size=40, local_epochs=20, learning_rate=0.05, momentum=0.9)
    models = [build_model("cnn", 5, seed=3) for _ in range(2)]
    reports = [train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "t")) for model in models]
    assert reports[0].epoch_losses[-1] < 0.5 * reports[0].epoch_losses[0]
    assert reports[0].epoch_losses == reports[1].epoch_losses
    _assert_same_state(*models)
