"""Whole recipes, optimiser, schedule, clipping and layers that draw, against loops of plain PyTorch, bit for bit."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torchvision.models import VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.ops import StochasticDepth

from config.run_config import RunConfig
from learning.draws import derived_draws
from learning.optimizer import LocalSGD, make_optimizer
from learning.training import _step, train_locally
from methods.ce import CE
from task import Compute, build_model, derived_generator, derived_seed, to_input

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES, CLASSES, SIDE, BATCH = 20, 5, 32, 8


def _small_convnext() -> nn.Module:
    blocks = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.5, num_classes=CLASSES)


def _small_vit() -> nn.Module:
    return VisionTransformer(SIDE, 16, 2, 2, 32, 64, dropout=0.2, num_classes=CLASSES)


BUILT: dict[str, Callable[[], nn.Module]] = {"convnext": _small_convnext, "vit": _small_vit}


def _model(name: str) -> nn.Module:
    """In channels-last layout, as `build_model` makes all networks."""
    if name not in BUILT:
        return build_model(name, CLASSES, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = BUILT[name]()
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.normal_(0, 0.1, generator=derived_generator(1, "head"))  # torchvision's ViT starts from zeros
    return model.to(memory_format=torch.channels_last)


def _data() -> tuple[Tensor, Tensor]:
    generator = derived_generator(1, "images")
    images = torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(IMAGES) % CLASSES


def _config(**values: Any) -> RunConfig:
    base: dict[str, Any] = {
        "image_size": SIDE, "batch_size": BATCH, "local_epochs": 2, "learning_rate": 0.01, "drop_last": False,
    }  # fmt: skip
    return RunConfig(**{**base, **values})


def _generator(server_round: int) -> torch.Generator:
    return derived_generator(1, "visit", server_round)


def _batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = _data()
    for _ in range(2):
        for rows in torch.randperm(IMAGES, generator=generator).split(BATCH):
            yield to_input(images[rows], CPU, "imagenet"), labels[rows]


def _plain_visit(model: nn.Module, optimizer: torch.optim.Optimizer, server_round: int, clipping: float = 0.0) -> None:
    """A loop as in PyTorch's tutorials; layers that draw take PyTorch's one global generator."""
    generator = _generator(server_round)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(generator.initial_seed(), "layers that draw"))
        for inputs, labels in _batches(generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            if clipping:
                nn.utils.clip_grad_norm_(model.parameters(), clipping)
            optimizer.step()


def _visit(model: nn.Module, config: RunConfig, server_round: int = 1, **more: Any) -> list[float]:
    images, labels = _data()
    report = train_locally(
        model, images, labels, CE(), config, CPU, _generator(server_round), server_round=server_round, **more
    )
    return report.epoch_losses


def _assert_same(one: nn.Module, other: nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


RECIPES: dict[str, tuple[dict[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "adamw": (
        {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},  # AdamW's defaults
        torch.optim.AdamW,
    ),
    "nesterov": (
        {"optimizer_args": "nesterov=true", "momentum": 0.9, "weight_decay": 5e-4},
        lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True),
    ),
}


QUICK = [(name, recipe, clipping) for name in ("cnn", *BUILT) for recipe in RECIPES for clipping in (0.0, 0.5)]


@pytest.mark.parametrize(("name", "recipe", "clipping"), [*QUICK, ("resnet18", "adamw", 0.5)])
def test_a_visit_equals_a_plain_loop_bit_for_bit(name: str, recipe: str, clipping: float) -> None:
    settings, optimizer = RECIPES[recipe]
    model = _model(name)
    plain, start = copy.deepcopy(model), copy.deepcopy(model)
    _visit(model, _config(**settings, gradient_clipping=clipping))
    _plain_visit(plain, optimizer(plain.parameters()), 1, clipping)
    _assert_same(model, plain)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if clipping:
        _visit(start, _config(**settings))
        pairs = zip(start.parameters(), model.parameters(), strict=True)
        assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("recipe", RECIPES)
def test_rounds_with_a_cosine_after_a_climb_equal_a_plain_loop_bit_for_bit(recipe: str) -> None:
    """Of five rounds the first two climb; a client's optimiser is new in each, as its memory is in the plain loop."""
    settings, optimizer = RECIPES[recipe]
    rounds, warm_up = 5, 2
    config = _config(
        **settings, num_server_rounds=rounds, lr_schedule="cosine", lr_schedule_args="final=0.1", lr_warm_up=warm_up
    )
    model = _model("convnext")
    plain = copy.deepcopy(model)
    kept = make_optimizer(config, model)
    for server_round in range(1, rounds + 1):
        _visit(model, config, server_round, optimizer=kept)

    new = optimizer(plain.parameters())
    after = rounds - warm_up
    climb = LinearLR(new, start_factor=1 / (warm_up + 1), total_iters=warm_up)
    fall = CosineAnnealingLR(new, T_max=after, eta_min=0.1 * config.learning_rate)
    schedule = SequentialLR(new, [climb, fall], milestones=[warm_up])
    for server_round in range(1, rounds + 1):
        new.state.clear()
        _plain_visit(plain, new, server_round)
        schedule.step()
    _assert_same(model, plain)


def test_the_proximal_term_is_clipped_with_the_gradient() -> None:
    """Clipping is of what a step follows, as a plain loop clips the gradient of the whole loss."""
    model = _model("cnn")
    plain, mu, clipping = copy.deepcopy(model), 10.0, 0.5
    _visit(model, _config(gradient_clipping=clipping), proximal_mu=mu)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    start = [weight.detach().clone() for weight in plain.parameters()]
    for inputs, labels in _batches(_generator(1)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels).backward()
        for weight, old in zip(plain.parameters(), start, strict=True):
            assert weight.grad is not None
            weight.grad += mu * (weight.detach() - old)
        nn.utils.clip_grad_norm_(plain.parameters(), clipping)
        optimizer.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_what_is_clipped_is_not_scaled_for_half_precision() -> None:
    """Of a loss 65,536 times as large, whose gradient (3, 4) has the length 5: as without a scale."""
    for clipping, expected in ((2.5, [-1.5, -2.0]), (50.0, [-3.0, -4.0])):
        model = nn.ParameterList([nn.Parameter(torch.zeros(2))])
        optimizer = LocalSGD(model)
        optimizer.begin(1.0, 0.0, 0.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        scaler.scale((model[0] * torch.tensor([3.0, 4.0])).sum()).backward()
        _step(scaler, optimizer, None, clipping)
        assert model[0].tolist() == pytest.approx(expected, rel=1e-6)


class Drawing(nn.Module):
    """A tiny network that draws in training."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = StochasticDepth(0.5, "row")
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        pooled = inputs.mean(dim=(2, 3))
        answer: Tensor = self.fc(self.dropout(pooled + self.depth(pooled)))
        return answer


def _drawing() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Drawing()


def test_equal_visits_draw_alike_and_leave_the_global_generator_as_it_was() -> None:
    models = [_drawing() for _ in range(3)]
    for number, model in enumerate(models[:2]):
        torch.manual_seed(number)  # whatever ran in this process before
        before = torch.get_rng_state()
        _visit(model, _config())
        assert torch.equal(torch.get_rng_state(), before)
    _assert_same(models[0], models[1])
    _visit(models[2], _config(), server_round=2)  # of another visit, other draws
    assert not torch.equal(models[0].fc.weight, models[2].fc.weight)  # type: ignore[arg-type,union-attr]


def test_what_layers_draw_changes_no_other_draw_of_the_visit() -> None:
    """Batches are those of a network that draws nothing."""
    seen: list[list[Tensor]] = []

    class Noting(CE):
        def loss(self, batch: Any, visit: Any) -> Tensor:
            seen[-1].append(batch.rows)
            return super().loss(batch, visit)

    for probability in (0.0, 0.5):
        model = _drawing()
        model.dropout.p = probability  # type: ignore[union-attr]
        seen.append([])
        train_locally(model, *_data(), Noting(), _config(), CPU, _generator(1))
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_a_visit_that_fails_puts_the_global_generator_back() -> None:
    before = torch.get_rng_state()
    with pytest.raises(FloatingPointError):
        _visit(_drawing(), _config(learning_rate=1e9, local_epochs=30))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_derive_from_the_seed_of_the_visit_and_not_from_how_far_its_generator_is() -> None:
    one, other = _generator(1), _generator(1)
    torch.rand(7, generator=other)
    drawn = []
    for generator in (one, other, _generator(2)):
        state = generator.get_state()
        with derived_draws(generator, CPU.device):
            drawn.append(torch.rand(3))
        assert torch.equal(generator.get_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
