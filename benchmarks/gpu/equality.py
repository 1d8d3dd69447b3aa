"""A visit on this device compared with a plain PyTorch loop over the same batches, and every method with the CPU.

In each precision both take the same steps from the same weights; only the order in which a GPU adds may differ. The
plain loop (`benchmarks.tools.bare_loop`) is written without the app's training code: torch's own SGD, its GradScaler,
batches by plain indexing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.step import CLASSES, TOY, computes, emit, scale
from benchmarks.tools.bare_loop import train
from config.run_config import RunConfig
from data.normalization import NORMALIZATIONS
from learning.augmentation import augment, stored_size
from learning.colour import distort
from learning.evaluation import evaluate
from learning.training import TrainingReport, train_locally
from methods import METHODS
from probe.client import HEAVIEST
from task import Compute, Heads, build_model, derived_generator, pick_compute

IMAGES, SIDE, BATCH, EPOCHS = 96, 64, 16, 2
if scale() is TOY:
    IMAGES, SIDE = 32, 32
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
# Largest difference of a weight after a visit, as a share of how far the weights moved. Half precision rounds every
# product, and a GPU may choose another algorithm for a batch elsewhere in memory.
ALLOWED = {"fp32": 1e-3, "tf32": 0.05, "bf16": 0.2, "fp16": 0.1}
CPU_LOSSES = 5e-3  # relative, of a method's epoch losses, GPU and CPU in fp32


def data(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Images whose colour tells their class, a quarter of the labels wrong, on the CPU."""
    generator = derived_generator(1, "benchmark images")
    truth = torch.arange(IMAGES) % CLASSES
    colours = torch.randint(60, 196, (CLASSES, 1, 1, 3), generator=generator)
    noise = torch.randint(-60, 60, (IMAGES, side, side, 3), generator=generator)
    labels = torch.where(torch.rand(IMAGES, generator=generator) < 0.25, (truth + 1) % CLASSES, truth)
    return (colours[truth] + noise).to(torch.uint8), labels


def settings(**changes: Any) -> RunConfig:
    base: dict[str, Any] = {
        "image_size": SIDE, "batch_size": BATCH, "local_epochs": EPOCHS, "learning_rate": RATE, "momentum": MOMENTUM,
        "weight_decay": DECAY, "num_server_rounds": 4,
    }  # fmt: skip
    return RunConfig(**{**base, **changes})


def visit(model: nn.Module, compute: Compute, config: RunConfig, **more: Any) -> TrainingReport:
    images, labels = data(stored_size(config.augmentation, SIDE))
    where = compute.device if more.pop("on_device", True) else torch.device("cpu")
    method = more.pop("method", None) or METHODS["ce"]()
    return train_locally(
        model, images.to(where), labels, method, config, compute, derived_generator(1, "visit"), **more
    )  # fmt: skip


def plain(model: nn.Module, compute: Compute, fused: bool = False) -> None:
    """The same steps as `visit`."""
    images, labels = (value.to(compute.device) for value in data())
    mean, deviation = (torch.tensor(values, device=compute.device) for values in NORMALIZATIONS["imagenet"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, fused=fused or None
    )  # fmt: skip
    generator = derived_generator(1, "visit")

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(EPOCHS):
            for chosen in torch.randperm(IMAGES, generator=generator).split(BATCH):  # type: ignore[no-untyped-call]
                rows = chosen.to(compute.device)
                yield ((images[rows].float() / 255 - mean) / deviation).permute(0, 3, 1, 2), labels[rows]

    train(model, batches(), optimizer, compute.dtype)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().double().cpu() for value in model.parameters()])


def fresh(name: str, device: torch.device, networks: int = 1, heads: Heads = ()) -> nn.Module:
    return build_model(name, CLASSES, seed=1, networks=networks, heads=heads).to(device)


def compare_precisions(name: str, device: torch.device) -> None:
    for precision, compute in computes(device).items():
        pick_compute(precision if device.type == "cuda" else "fp32")  # sets TF32, and algorithms that repeat
        # With losses scaled, PyTorch's fused SGD and its plain one end with different weights on a GPU; ours is fused.
        fused = compute.dtype is torch.float16 and device.type == "cuda"
        start = weights(fresh(name, device))
        models = [fresh(name, device) for _ in range(3)]
        visit(models[0], compute, settings())
        visit(models[1], compute, settings(), on_device=False)
        plain(models[2], compute, fused)
        ours, streamed, theirs = (weights(model) for model in models)
        moved = float((theirs - start).abs().max())
        apart = float((ours - theirs).abs().max()) / moved
        aim = f"at most {ALLOWED[precision]:g}"
        what = f"{name}, {precision}: weights of a visit and of a plain loop, difference / distance moved"
        emit(what, apart, ok=apart <= ALLOWED[precision], aim=aim)
        what = f"{name}, {precision}: images on the device or copied ahead of each step, same bits"
        emit(what, bool(torch.equal(ours, streamed)), ok=torch.equal(ours, streamed), aim="True")


def compare_half_precision(name: str, device: torch.device) -> None:
    """In fp16, the plain loop against itself, and with PyTorch's fused SGD, which no visit differs from."""
    compute = Compute(device, torch.float16)
    pick_compute("auto")
    start = weights(fresh(name, device))
    models = [fresh(name, device) for _ in range(4)]
    visit(models[0], compute, settings())
    plain(models[1], compute)
    plain(models[2], compute)
    plain(models[3], compute, fused=device.type == "cuda")
    ours, once, again, fused = map(weights, models)
    moved = float((once - start).abs().max())
    for what, one, other in (
        ("twice", again, once),
        ("with fused SGD", fused, once),
        ("with fused SGD, and a visit", fused, ours),
    ):
        emit(
            f"{name}, fp16: the plain loop {what}, difference / distance moved",
            float((one - other).abs().max()) / moved,
        )


def compare_repeats(name: str, device: torch.device) -> None:
    for autotune in (False, True):
        compute = pick_compute("auto", autotune)
        models = [fresh(name, device) for _ in range(2)]
        for model in models:
            visit(model, compute, settings())
        same = torch.equal(*map(weights, models))
        emit(f"{name}, {compute}, autotune {autotune}: two visits, same bits", same, ok=same or autotune or None)
    pick_compute("auto", autotune=False)


def compare_views(device: torch.device) -> None:
    """Augmentation draws on the CPU and works on the device: the same pixels on both."""
    images, _ = data(stored_size("crop-flip", SIDE))
    for augmentation in ("crop-flip", "flip", "crop-flip-jitter", "crop-flip-randaugment"):
        here, there = (augment(images.to(at), augmentation, SIDE, derived_generator(1, "view")).cpu().int()
                       for at in (torch.device("cpu"), device))  # fmt: skip
        most = int((here - there).abs().max())
        allowed = 2 if "jitter" in augmentation else 0  # levels of 255; colours are computed in float
        emit(f"{augmentation}: pixels on CPU and device, largest difference", most, "levels", ok=most <= allowed,
             aim=f"at most {allowed}")  # fmt: skip
    where = distort(images.to(device), derived_generator(1, "view")).device
    emit("colour jitter stays on the device", str(where), ok=where.type == device.type)


def compare_methods(device: torch.device) -> None:
    """Two visits of every method, the second with what the first kept; epoch losses compared with the CPU's."""
    for name, make in METHODS.items():
        method: Any = make()
        losses: list[list[float]] = []
        try:
            for at in (torch.device("cpu"), device):
                model, state = fresh("cnn", at, method.networks, method.heads), None
                compute, found = Compute(at, torch.float32), []
                for number in (3, 4):
                    report = visit(
                        model, compute, settings(augmentation="crop-flip"), method=method, told=HEAVIEST, state=state,
                        server_round=number,
                    )  # fmt: skip
                    state = {key: value.cpu() for key, value in report.visit.state.items()}
                    found += report.epoch_losses
                losses.append(found)
        except Exception as error:  # the step continues with the next method
            emit(f"method {name}: CPU and device", f"{type(error).__name__}: {error}", ok=False)
            continue
        apart = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(*losses, strict=True))
        emit(f"method {name}: epoch losses of two visits on CPU and device, relative difference", apart,
             ok=apart <= CPU_LOSSES, aim=f"at most {CPU_LOSSES:g}")  # fmt: skip


def compare_evaluation(device: torch.device) -> None:
    images, labels = data()
    results = [
        evaluate(fresh("resnet18", at), images.numpy(), labels.numpy(), Compute(at, torch.float32), "imagenet")
        for at in (torch.device("cpu"), device)
    ]
    apart = abs(results[0].loss - results[1].loss) / results[0].loss
    emit("evaluation: loss on CPU and device, relative difference", apart, ok=apart < 1e-4, aim="below 1e-4")
    moved = int(abs(results[0].confusion - results[1].confusion).sum()) // 2
    emit("evaluation: images classified otherwise", moved, f"of {IMAGES}", ok=moved <= 1, aim="at most 1")


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = ("cnn", "resnet18", "resnet50") if scale().model == "resnet50" else ("cnn",)
    parts: list[Callable[[], None]] = [partial(compare_precisions, name, device) for name in names]
    parts += [partial(compare_half_precision, names[-1], device), partial(compare_repeats, names[-1], device)]
    parts += [partial(part, device) for part in (compare_views, compare_methods, compare_evaluation)]
    for part in parts:
        try:
            part()
        except Exception as error:  # the next part matters as much
            emit(str(part), f"{type(error).__name__}: {error}", ok=False)


if __name__ == "__main__":
    main()
