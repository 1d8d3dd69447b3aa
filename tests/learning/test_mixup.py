"""MixUp: numbers worked out by hand, the distribution of its shares, and cross-entropy that mixes its images."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from config.run_config import RunConfig
from learning.method import Seen
from learning.mixup import Mix, beta, draw_mix
from learning.training import train_locally
from methods.ce import CE
from task import Compute, build_model, derived_generator, to_input
from tests.batches_of import Y, Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
MIX = Mix(torch.tensor(0.75), torch.tensor([2, 0, 1]))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_by_hand() -> None:
    values = torch.tensor([[0.0, 4.0], [8.0, 0.0], [4.0, 2.0]])
    expected = [[1.0, 3.5], [6.0, 1.0], [5.0, 1.5]]
    assert MIX.of(values).tolist() == expected
    assert MIX.of(values, first=2).tolist() == expected[:2]
    assert MIX.of(values.double()).dtype is torch.float64
    assert MIX.mean(torch.tensor(2.0), torch.tensor(6.0)).item() == 3.0


def test_a_share_of_one_changes_nothing_and_images_keep_their_layout() -> None:
    images = torch.rand(3, 8, 8, 3).permute(0, 3, 1, 2)
    assert torch.equal(Mix(torch.tensor(1.0), MIX.partners).of(images), images)
    assert MIX.of(images).stride() == images.stride()


def _shares(alpha: float, count: int = 2000) -> torch.Tensor:
    generator = _generator()
    return torch.stack([beta(alpha, generator) for _ in range(count)])


def test_shares_are_those_of_the_beta_distribution() -> None:
    """Beta(1/2, 1/2) has a distribution function in closed form, Beta(1, 1) is uniform; 1.63 is the 1 % point of KS."""
    ranks = torch.arange(1, 2001) / 2000
    for alpha, function in ((0.5, lambda x: 2 / torch.pi * x.sqrt().asin()), (1.0, lambda x: x)):
        assert (function(_shares(alpha).sort().values) - ranks).abs().max() < 1.63 / 2000**0.5
    for alpha in (0.2, 32.0):
        drawn = _shares(alpha)
        assert drawn.dtype is torch.float64
        assert drawn.mean().item() == pytest.approx(0.5, abs=4 * (drawn.var().item() / 2000) ** 0.5)
        assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_tiny_parameter_leaves_images_as_they_are() -> None:
    """PyTorch's own draws of Gamma(1e-4) are mostly the smallest number above 0, and their share 1/2."""
    drawn = _shares(1e-4)
    assert ((drawn < 1e-9) | (drawn > 1 - 1e-9)).double().mean() > 0.99
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("alpha", [1e-9, 1e9])
def test_extreme_parameters_give_shares_nevertheless(alpha: float) -> None:
    drawn = _shares(alpha, 50)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_draws_come_from_the_generator_alone_and_partners_are_a_permutation() -> None:
    one, again = (draw_mix(50, 0.5, _generator(3), CPU.device) for _ in range(2))
    other = draw_mix(50, 0.5, _generator(4), CPU.device)
    assert torch.equal(one.share, again.share)
    assert torch.equal(one.partners, again.partners)
    assert not torch.equal(one.share, other.share)
    assert one.partners.sort().values.tolist() == list(range(50))
    assert one.share.dtype is torch.float32


def test_the_larger_share_where_it_is_asked_for() -> None:
    def shares(mostly_own: bool) -> torch.Tensor:
        drawn = [draw_mix(4, 0.5, _generator(seed), CPU.device, mostly_own=mostly_own) for seed in range(40)]
        return torch.stack([mix.share for mix in drawn])

    assert (shares(False) < 0.5).any()
    torch.testing.assert_close(shares(True), torch.maximum(shares(False), 1 - shares(False)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_labels(smoothing: float) -> None:
    """The shared example: 0.25 l_00 + ... is the same as the cross-entropy with mixed soft labels."""
    method = CE(smoothing, mixup=1.0)
    visit = visit_of(Y)
    visit.scratch["mix"] = Mix(torch.tensor(0.75), torch.tensor([1, 0]))
    loss = method.loss(batch_of(Y, Z), visit)
    soft = one_hot(Y, 3).double()
    expected = cross_entropy(Z, 0.75 * soft + 0.25 * soft[[1, 0]], label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    if not smoothing:  # 0.75 * 0.847437 + 0.25 * (3.241311 + 1.653564) / 2
        assert loss.item() == pytest.approx(1.247437, abs=1e-5)


def _visit(method: CE, **changes: Any) -> Any:
    settings = {"model": "cnn", "image_size": 16, "batch_size": 4, "local_epochs": 2, "learning_rate": 0.01}
    config = RunConfig(**{**settings, **changes})
    images = torch.randint(256, (10, 16, 16, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    model = build_model("cnn", 5, seed=3)
    report = train_locally(model, images, torch.arange(10) % 4, method, config, CPU, derived_generator(1, "t"))
    return report, model, images


def test_a_step_follows_a_loop_written_for_it_alone() -> None:
    report, model, images = _visit(CE(mixup=0.4), local_epochs=1, batch_size=10, momentum=0.0, weight_decay=0.0)
    plain, generator, labels = build_model("cnn", 5, seed=3), derived_generator(1, "t"), torch.arange(10) % 4
    rows = torch.randperm(10, generator=generator)
    share = beta(0.4, generator).float()
    partners = rows[torch.randperm(10, generator=generator)]
    one, other = (to_input(images[chosen], CPU, "imagenet") for chosen in (rows, partners))
    soft = one_hot(labels, 5).float()
    loss = cross_entropy(plain(share * one + (1 - share) * other), share * soft[rows] + (1 - share) * soft[partners])
    assert report.epoch_losses == pytest.approx([loss.item()], abs=1e-5)
    loss.backward()
    head = plain.get_parameter("fc.weight")
    assert head.grad is not None
    torch.testing.assert_close(model.get_parameter("fc.weight"), head - 0.01 * head.grad, rtol=0, atol=1e-6)


def test_without_it_cross_entropy_draws_and_mixes_nothing() -> None:
    visit = visit_of(Y)
    before = visit.generator.get_state()
    seen = Seen(torch.arange(2), Y, (2,), 0, [torch.zeros(2, 3, 4, 4)])
    assert CE().mix(seen, visit) is seen.inputs
    assert torch.equal(visit.generator.get_state(), before)
    assert not visit.scratch


def test_batches_of_one_and_a_step_that_does_not_wait() -> None:
    alone, _, _ = _visit(CE(mixup=1.0), batch_size=1)
    assert alone.images_seen == 20
    with CountedOperations() as operations:
        _visit(CE(mixup=1.0))
    assert operations.counts["aten::_local_scalar_dense"] == 2  # one an epoch


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "x"])
def test_bad_values_end_in_a_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match="mixup must be a number at least 0 and at most 1,000,000,000"):
        CE(mixup=value)
