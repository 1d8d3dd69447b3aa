"""What a model makes of all training images, by hand: margins, agreement, changed predictions, what is remembered."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from config.run_config import RunConfig
from learning.evaluation import evaluate
from learning.images import Features, Images
from learning.inference import Inference
from learning.inspection import Inspected, Look, finite, look, margins_of, remember, share_changed
from learning.replica import as_written
from learning.schema import LARGEST
from task import Compute, Networks, build_model

CPU = Compute(torch.device("cpu"), torch.float32)
ONE_AT_A_TIME = 632  # pixels: an evaluation batch of so large images holds one
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]])
GIVEN = torch.tensor([0, 2, 1])


def _look(logits: Tensor, given: Tensor, model: nn.Module | None = None, image_size: int = 16) -> Look:
    """At a model whose inputs are its logits, unless another is given."""
    inference = Inference(Features(logits, CPU.device), image_size, CPU, "imagenet")
    return look(model or nn.Identity(), inference, given)


@pytest.mark.parametrize("image_size", [16, ONE_AT_A_TIME])
def test_a_look_by_hand(image_size: int) -> None:
    seen = _look(LOGITS, GIVEN, image_size=image_size)
    assert seen.loss == pytest.approx((0.40760596 + 2.16984602 + 0.86199480) / 3)  # ln(e^2 + e + 1) - 2, and so on
    assert seen.agreement == pytest.approx(1 / 3)  # the first of two equal logits is predicted
    assert seen.margins.tolist() == [1.0, -2.0, 0.0]
    assert seen.predicted.tolist() == [0, 1, 0]
    assert seen.confidence.tolist() == pytest.approx([0.66524096, 0.84379473, 0.42231880])
    assert (seen.margins.dtype, seen.predicted.dtype, seen.confidence.dtype) == (
        torch.float32, torch.int16, torch.float32,
    )  # fmt: skip


def test_several_networks_answer_with_the_mean_of_their_probabilities() -> None:
    undecided = nn.Linear(2, 2)
    nn.init.zeros_(undecided.weight)
    nn.init.zeros_(undecided.bias)
    seen = _look(torch.tensor([[math.log(3), 0.0]]), torch.tensor([1]), Networks([nn.Identity(), undecided]))
    assert seen.margins.tolist() == pytest.approx([math.log(0.375 / 0.625)])  # means of 3/4 and 1/2, of 1/4 and 1/2
    assert seen.confidence.tolist() == pytest.approx([0.625])
    assert seen.loss == pytest.approx(-math.log(0.375))


def test_memories_add_up_margins_and_keep_the_last_predictions() -> None:
    first = _look(LOGITS, GIVEN)
    after_one = remember(first, None)
    later = _look(torch.tensor([[0.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 5.0, 0.0]]), GIVEN)
    after_two = remember(later, after_one)
    assert (after_one.visits, after_one.margins.tolist()) == (1, [1.0, -2.0, 0.0])
    assert (after_two.visits, after_two.margins.tolist()) == (2, [-1.0, -4.0, 5.0])
    assert after_two.predicted.tolist() == [1, 1, 1]
    assert torch.equal(after_two.confidence, later.confidence)
    assert share_changed(later, after_one) == pytest.approx(2 / 3)
    assert share_changed(first, after_one) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(2, 7), st.integers(0, 2**31))
def test_a_margin_is_positive_exactly_where_the_label_alone_is_predicted(images: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    seen = _look(logits, labels)
    assert torch.equal(seen.margins > 0, logits.argmax(dim=1) == labels)
    assert seen.agreement == pytest.approx(float((seen.margins > 0).double().mean()))
    assert bool((seen.confidence >= 1 / classes - 1e-6).all())


def test_it_sees_what_the_evaluation_sees() -> None:
    """In float32 even if training is not, in evaluation mode, without drawing; and leaves the model as it was."""
    model = nn.Sequential(build_model("cnn", 5, seed=1), nn.Dropout(0.5)).train()
    images = torch.randint(256, (30, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(30) % 5
    before, drawn = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    half = replace(CPU, dtype=torch.bfloat16)
    seen = look(model, Inference(Images(images, CPU.device), 16, half, "half"), labels)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    expected = evaluate(model, images.numpy(), labels.numpy(), CPU, "half")
    assert (seen.loss, seen.agreement) == (expected.loss, expected.accuracy)


def test_a_model_that_has_diverged_is_reported_as_such_in_finite_numbers() -> None:
    logits = torch.tensor([[math.nan, 0.0, 1.0], [math.inf, 0.0, 0.0], [0.0, 1.0, 0.0]])
    seen = _look(logits, torch.tensor([0, 1, 1]))
    assert seen.loss == LARGEST
    assert seen.margins.tolist() == pytest.approx([0.0, -LARGEST, 1.0])
    assert bool(seen.confidence.isfinite().all())
    assert (finite(math.nan), finite(math.inf), finite(0.25)) == (LARGEST, LARGEST, 0.25)


def test_a_single_class_is_never_doubted() -> None:
    assert margins_of(torch.tensor([[0.5]]), torch.tensor([0])).tolist() == pytest.approx([LARGEST])


def test_looking_compiles_nothing() -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        compiled.append(1)
        return graph

    model = nn.Linear(3, 3)
    model.compile(backend=backend)
    with as_written(RunConfig(compile=True)):
        _look(LOGITS, GIVEN, model)
    assert not compiled
    model(LOGITS)
    assert compiled == [1]


def test_what_is_remembered_holds_no_gradients() -> None:
    seen = _look(LOGITS, GIVEN, nn.Linear(3, 3))
    kept: Inspected = remember(seen, None)
    assert not any(value.requires_grad for value in (kept.margins, kept.confidence))
