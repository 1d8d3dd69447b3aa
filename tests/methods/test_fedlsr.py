"""Local self-regularisation: worked numbers, its gradient, its two views and its warm-up."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.augmentation import stored_size
from learning.colour import distort_inputs
from learning.method import Seen
from learning.training import train_locally
from methods.fedlsr import FedLSR, jensen_shannon
from task import Compute, build_model, derived_generator
from tests.batches_of import ZB, Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture
def lambda_is_3_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda size, generator: torch.tensor(0.3, dtype=torch.float64))


def _loss(one: Tensor = Z, other: Tensor = ZB, server_round: int = 9, **values: Any) -> Tensor:
    """In the last round of ten, where gamma(t) is gamma."""
    visit = visit_of(Y, server_round=server_round, num_rounds=10)
    return FedLSR(**values).loss(batch_of(Y, [one, other]), visit)


@pytest.mark.usefixtures("lambda_is_3_tenths")
@pytest.mark.parametrize(
    ("gamma", "entropy", "form", "expected"),
    [
        (0.0, 0.0, "paper", 0.700430),
        (1.0, 0.0, "paper", 0.700430 + 0.399385),
        (0.0, 1.0, "paper", 0.700430 + (0.061703 + 0.373608 + 0.488657 + 0.736678) / 4),
        (0.4, 0.3, "paper", 0.984732),
        (0.0, 0.0, "reference", 0.950592),
        (1.0, 0.0, "reference", 0.950592 + 0.133128),
        (0.0, 1.0, "reference", 0.950592 + 0.993525),
        (0.4, 0.3, "reference", 1.301900),
    ],
)
def test_worked_numbers(gamma: float, entropy: float, form: str, expected: float) -> None:
    assert _loss(gamma=gamma, entropy=entropy, form=form).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.usefixtures("lambda_is_3_tenths")
@pytest.mark.parametrize("form", ["paper", "reference"])
def test_the_gradient_is_that_of_the_formula(form: str) -> None:
    def formula(z1: Tensor, z2: Tensor) -> Tensor:
        p = 0.3 * z1.softmax(1) + 0.7 * z2.softmax(1)
        sharp = p**2 / (p**2).sum(1, keepdim=True)
        q1, q2 = (3 * z1).softmax(1), (3 * z2).softmax(1)
        m = (q1 + q2) / 2
        js = sum((q * (q / m).log()).sum(1).mean() for q in (q1, q2)) / 2
        if form == "paper":
            fit = -sharp[[0, 1], Y].log().mean()
            doubt = -sum((q * q.log()).sum(1).mean() for q in (q1, q2)) / 2
        else:
            fit, js, r = cross_entropy(sharp, Y), js / 3, q1.softmax(1)
            doubt = -(r * r.log()).sum(1).mean()
        return fit + 0.4 * js + 0.6 * doubt

    logits, plain = ([z.clone().requires_grad_() for z in (Z, ZB)] for _ in range(2))
    _loss(logits[0], logits[1], form=form).backward()
    formula(*plain).backward()
    for one, other in zip(logits, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["paper", "reference"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1 - 2**-24])
def test_certain_and_contradicting_views_leave_loss_and_gradient_finite(
    monkeypatch: pytest.MonkeyPatch, form: str, share: float
) -> None:
    monkeypatch.setattr(torch, "rand", lambda size, generator: torch.tensor(share))
    one = torch.tensor([[100.0, -100.0, 0.0], [-100.0, 100.0, 0.0]], requires_grad=True)
    other = (-one.detach()).requires_grad_()
    loss = _loss(one, other, form=form)
    loss.backward()
    assert torch.isfinite(loss)
    for view in (one, other):
        assert view.grad is not None
        assert torch.isfinite(view.grad).all()


@given(st.integers(0, 10_000))
def test_the_divergence_is_symmetric_and_at_most_log_2(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (4 * torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)).softmax(dim=2)
    value = jensen_shannon(one, other).item()
    assert value == pytest.approx(jensen_shannon(other, one).item())
    assert 0 <= value <= 0.693148
    assert jensen_shannon(one, one).item() == pytest.approx(0, abs=1e-12)


def test_the_mixture_is_drawn_from_the_visits_generator_for_each_batch() -> None:
    method, batch = FedLSR(), batch_of(Y, [Z, ZB])
    visits = [visit_of(Y, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    losses = [[method.loss(batch, visit).item() for _ in range(3)] for visit in visits]
    assert losses[0] == losses[1]
    assert len({*losses[0], *losses[2]}) == 6


def test_gamma_rises_over_a_fifth_of_the_rounds() -> None:
    method = FedLSR()
    assert [method.gamma_at(1 + t, 40) for t in (0, 1, 4, 8, 39)] == pytest.approx([0, 0.05, 0.2, 0.4, 0.4])
    assert FedLSR(warm_up_rounds=2).gamma_at(2, 40) == pytest.approx(0.2)
    assert FedLSR(warm_up_rounds=0).gamma_at(1, 40) == 0.4
    assert method.gamma_at(1, 1) == 0.4  # a fifth of one round is none


@pytest.mark.usefixtures("lambda_is_3_tenths")
def test_the_first_round_has_no_divergence() -> None:
    assert _loss(server_round=1).item() == pytest.approx(_loss(gamma=0.0).item())


@pytest.mark.parametrize(
    ("augmentation", "second"),
    [
        ("none", "flip-jitter"),
        ("flip", "flip-jitter"),
        ("crop-flip", "crop-flip-jitter"),
        ("crop-flip-jitter", "crop-flip-jitter"),
    ],
)
@pytest.mark.parametrize(("count", "batch_size"), [(5, 8), (9, 4), (3, 1)])
@pytest.mark.parametrize("colours", ["images", "batch"])
def test_one_visit(augmentation: str, second: str, count: int, batch_size: int, colours: str) -> None:
    """Also of a partition smaller than a batch, of batches of one, and of a client with one class."""
    method = FedLSR(colours=colours)
    assert method.views(augmentation) == [augmentation, second][: 2 if colours == "images" else 1]
    config = RunConfig(
        model="cnn", image_size=16, batch_size=batch_size, drop_last=False, augmentation=augmentation, local_epochs=2
    )
    side = stored_size(augmentation, 16)
    images = torch.randint(256, (count, side, side, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    labels = torch.full((count,), 2)
    reports = [
        train_locally(
            build_model("cnn", 5, seed=3), images, labels, method, config, CPU,
            derived_generator(1, "t"), server_round=2,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert reports[0].images_seen == 2 * count
    assert reports[0].epoch_losses == reports[1].epoch_losses


def test_the_second_view_of_a_batch_is_made_of_the_first() -> None:
    inputs = torch.randn(4, 3, 8, 8, generator=derived_generator(1, "x"))
    seen = Seen(torch.arange(4), torch.zeros(4, dtype=torch.long), (4,), 0, [inputs])
    method = FedLSR(colours="batch")
    assert method.views("crop-flip") == ["crop-flip"]
    generator = derived_generator(1, "t")
    first, second = method.mix(seen, visit_of(Y, generator=generator))
    assert first is inputs
    torch.testing.assert_close(second, distort_inputs(inputs, derived_generator(1, "t")))
    assert not torch.equal(method.mix(seen, visit_of(Y, generator=generator))[1], second)  # drawn for each batch


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gamma": -1}, "gamma must be a number at least 0"),
        ({"entropy": float("nan")}, "entropy must be a number at least 0"),
        ({"warm_up": 1.5}, "warm-up must be a number at least 0 and at most 1"),
        ({"warm_up_rounds": -2}, "warm-up-rounds must be a whole number"),
        ({"warm_up_rounds": 2.5}, "warm-up-rounds must be a whole number"),
        ({"form": "code"}, "form must be one of paper, reference"),
        ({"colours": "grey"}, "colours must be one of images, batch"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FedLSR(**values)
