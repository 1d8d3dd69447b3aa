"""Model, precision, evaluation."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from config.run_config import ConfigError
from data.normalization import NORMALIZATIONS
from learning.evaluation import Evaluation, evaluate, evaluation_batch
from task import (
    Compute,
    build_model,
    classifier,
    derived_generator,
    derived_seed,
    networks_of,
    pick_compute,
    to_input,
)

CPU = Compute(torch.device("cpu"), torch.float32)


def test_resnet50_has_the_published_size() -> None:
    model = build_model("resnet50", 14, seed=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_536_718
    assert len(model.state_dict()) == 320


def test_the_small_network_has_the_size_that_is_worked_out_by_hand() -> None:
    state = build_model("cnn", 14, seed=1).state_dict()
    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 64)
    scales_and_shifts = 2 * (16 + 32 + 64)
    buffers = {name: value for name, value in state.items() if "running" in name or "tracked" in name}
    assert len(buffers) == 3 * 3  # mean, variance and number of batches of each stage
    assert len(state) == 3 * (1 + 2) + 2 + len(buffers)
    counted = sum(value.numel() for name, value in state.items() if name not in buffers)
    assert counted == convolutions + scales_and_shifts + 64 * 14 + 14 == 24_606


@pytest.mark.parametrize("size", [16, 17, 32, 65])
def test_the_small_network_takes_images_of_any_size(size: int) -> None:
    model = build_model("cnn", 5, seed=1)
    assert model.get_parameter("conv2.weight").is_contiguous(memory_format=torch.channels_last)
    images = to_input(torch.zeros(2, size, size, 3, dtype=torch.uint8), CPU, "imagenet")
    assert model(images).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet18", "cnn"])
def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one, two, other = (build_model(name, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.conv1.weight, two.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(one.conv1.weight, other.conv1.weight)  # type: ignore[union-attr, arg-type]


def test_the_first_of_several_networks_is_the_lone_one_and_the_others_have_other_weights() -> None:
    alone, several = build_model("cnn", 3, seed=1), build_model("cnn", 3, seed=1, networks=3)
    assert networks_of(alone) == [alone]
    first, *others = (network.state_dict() for network in networks_of(several))
    assert len(others) == 2
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], value), name
    for name in ("conv1.weight", "fc.weight"):
        assert not torch.equal(first[name], others[0][name])
        assert not torch.equal(others[0][name], others[1][name])
    again = build_model("cnn", 3, seed=1, networks=3).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in several.state_dict().items())


def test_arrays_of_several_networks_are_named_by_network() -> None:
    alone, several = build_model("resnet18", 3, seed=1), build_model("resnet18", 3, seed=1, networks=2)
    names = [f"networks.{number}.{name}" for number in (0, 1) for name in alone.state_dict()]
    assert list(several.state_dict()) == names
    weight = several.get_parameter("networks.1.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_several_networks_answer_with_the_mean_of_their_probabilities() -> None:
    several = build_model("cnn", 3, seed=1, networks=2).eval()
    inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = several(inputs)
        parts = [network(inputs).softmax(dim=1) for network in networks_of(several)]
    assert answer.dtype is torch.float32
    torch.testing.assert_close(answer.exp(), (parts[0] + parts[1]) / 2, rtol=0, atol=1e-6)
    assert not torch.allclose(parts[0], parts[1], atol=1e-3)


def test_several_networks_are_evaluated_as_one_model() -> None:
    several = build_model("cnn", 3, seed=1, networks=2)
    images = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(9) % 3
    result = evaluate(several, images, labels, CPU, "imagenet")
    with torch.inference_mode():
        parts = [n(to_input(torch.from_numpy(images), CPU, "imagenet")).softmax(1) for n in networks_of(several)]
    mean = (parts[0] + parts[1]) / 2
    assert result.loss == pytest.approx(-mean[np.arange(9), labels].log().mean().item(), rel=1e-5)
    assert result.confusion.sum() == 9


def test_derived_seeds_differ_by_purpose_and_number() -> None:
    seeds = [
        derived_seed(1, "a"), derived_seed(2, "a"), derived_seed(1, "b"), derived_seed(1, "a", 0),
        derived_seed(1, "a", 1), derived_seed(1, "a", 1, 0), derived_seed(1, "a", 0, 1),
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    first, second = (torch.rand(3, generator=derived_generator(1, "a")) for _ in range(2))
    assert torch.equal(first, second)


def test_derived_seeds_stay_what_they_are() -> None:
    """Published runs name their seed; another derivation would make it mean something else."""
    assert derived_seed(1, "local training", 3, 5) == 2_444_313_794_826_881_871


def test_input_is_what_torchvisions_transforms_give() -> None:
    from torchvision.transforms import v2

    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    mean, deviation = NORMALIZATIONS["imagenet"]
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)])
    ours = to_input(torch.from_numpy(image[None]), CPU, "imagenet")
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours[0], transform(image), rtol=0, atol=1e-6)


def test_metrics_by_hand() -> None:
    """True 0: 3 right, 1 taken for 1. True 1: 1 right, 1 taken for 0. Class 2: no image, once predicted for true 1."""
    result = Evaluation(0.0, np.array([[3, 1, 0], [1, 1, 1], [0, 0, 0]]))
    assert result.num_examples == 7
    assert result.accuracy == pytest.approx(4 / 7)
    assert result.recall[:2] == pytest.approx([3 / 4, 1 / 3])
    assert np.isnan(result.recall[2])
    # F1: 2*3/(4+4), 2*1/(3+2), 2*0/(0+1)
    assert result.macro_f1 == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_metrics_equal_scikit_learns(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, (2, count))
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (truth, guess), 1)
    result = Evaluation(0.0, confusion)
    assert result.accuracy == pytest.approx(accuracy_score(truth, guess))
    assert result.macro_f1 == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))


def test_evaluation_equals_one_pass_over_everything() -> None:
    """300 images need two batches; loss and confusion must not notice."""
    assert evaluation_batch(32, CPU.device) < 300
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, 300).astype(np.int32)
    model = build_model("resnet18", 4, seed=2)
    result = evaluate(model, images, labels, CPU, "imagenet")
    model.eval()
    with torch.inference_mode():
        logits = model(to_input(torch.from_numpy(images), CPU, "imagenet"))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
    assert result.loss == pytest.approx(expected.item(), rel=1e-5)
    guesses = logits.argmax(dim=1).numpy()
    for row in range(4):
        for column in range(4):
            assert result.confusion[row, column] == ((labels == row) & (guesses == column)).sum()


def test_evaluation_computes_in_float32_whatever_the_precision() -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), rng.integers(0, 4, 64)
    model = build_model("resnet18", 4, seed=2)
    exact, rounded = (evaluate(model, images, labels, one, "imagenet") for one in (CPU, pick_compute("bf16")))
    assert rounded.loss == exact.loss
    np.testing.assert_array_equal(rounded.confusion, exact.confusion)


def test_batches_of_evaluation_hold_about_as_many_pixels_on_a_cpu() -> None:
    sizes = {size: evaluation_batch(size, torch.device("cpu")) for size in (16, 48, 112, 224, 1024)}
    assert sizes == {16: 256, 48: 173, 112: 31, 224: 7, 1024: 1}
    assert evaluation_batch(224, torch.device("cuda")) == 256


def test_evaluation_draws_nothing() -> None:
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate()
    evaluate(build_model("resnet18", 2, 1), np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), CPU, "imagenet")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_half_precision_needs_a_gpu() -> None:
    assert pick_compute("fp32").dtype is torch.float32
    assert pick_compute("bf16").dtype is torch.bfloat16
    if not torch.cuda.is_available():
        for precision in ("fp16", "tf32"):
            with pytest.raises(ConfigError, match=f"'precision' is '{precision}', which needs a GPU"):
                pick_compute(precision)


def test_further_heads_change_nothing_else() -> None:
    alone, headed = build_model("cnn", 3, seed=1), build_model("cnn", 3, seed=1, heads=(("types", 4), ("more", 2)))
    state = headed.state_dict()
    names = [f"further_heads.{head}.{kind}" for head in ("types", "more") for kind in ("weight", "bias")]
    assert list(state) == [*alone.state_dict(), *names]
    assert all(torch.equal(state[name], value) for name, value in alone.state_dict().items())
    assert [tuple(state[name].shape) for name in names] == [(4, 64), (4,), (2, 64), (2,)]
    assert classifier(headed) is headed.get_submodule("fc")
    inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(headed.eval()(inputs), alone.eval()(inputs))
    again = build_model("cnn", 3, seed=1, heads=(("types", 4), ("more", 2))).state_dict()
    assert all(torch.equal(again[name], state[name]) for name in names)


def test_each_of_several_networks_has_heads_of_its_own() -> None:
    several = build_model("cnn", 3, seed=1, networks=2, heads=(("types", 4),))
    first, second = (network.get_parameter("further_heads.types.weight") for network in networks_of(several))
    assert not torch.equal(first, second)
    assert all(classifier(network).out_features == 3 for network in networks_of(several))


def test_evaluation_does_not_ask_further_heads() -> None:
    headed = build_model("cnn", 3, seed=1, heads=(("types", 4),))
    headed.get_submodule("further_heads.types").register_forward_hook(lambda *_: pytest.fail("a head was asked"))
    images = np.zeros((4, 16, 16, 3), np.uint8)
    found = evaluate(headed, images, np.arange(4) % 3, CPU, "imagenet")
    assert found.confusion.shape == (3, 3)
