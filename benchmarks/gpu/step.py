"""What every step of `benchmarks.gpu` shares: its size on this machine, and how it reports."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.tools.report import Stopwatch
from task import Compute

CLASSES = 14


@dataclass(frozen=True)
class Scale:
    """How much the steps do.

    Attributes:
        model: A torchvision ResNet.
        image_size: Of the input, in pixels.
        batch_size: Images a step.
        steps: Of SGD in everything that is timed.
        repeats: Of everything that is timed; contenders take turns.
        at_once: Numbers of clients that train at the same time.
        images: Of each client in a whole run.
        photos: JPEG files that are decoded.
    """

    model: str
    image_size: int
    batch_size: int
    steps: int
    repeats: int
    at_once: tuple[int, ...]
    images: int
    photos: int


FULL = Scale("resnet50", 224, 64, steps=60, repeats=3, at_once=(1, 2, 4, 8), images=1280, photos=2000)
TOY = Scale("resnet18", 32, 4, steps=2, repeats=1, at_once=(2,), images=8, photos=8)


def scale() -> Scale:
    return FULL if torch.cuda.is_available() else TOY


def computes(device: torch.device) -> dict[str, Compute]:
    """Every precision that the device can be asked for, by its name in the run config."""
    found = {"fp32": Compute(device, torch.float32), "bf16": Compute(device, torch.bfloat16)}
    if device.type == "cuda":
        found["tf32"] = Compute(device, torch.float32, tf32=True)
        found["fp16"] = Compute(device, torch.float16)
    return found


def emit(what: str, value: Any, unit: str = "", *, ok: bool | None = None, aim: str = "") -> None:
    """One finding, as one line of JSON on stdout, at once.

    Args:
        what: In words.
        value: A number or a short text.
        unit: Of the number.
        ok: Whether the requirement holds; None where there is none.
        aim: What is required.
    """
    print(json.dumps({"what": what, "value": value, "unit": unit, "ok": ok, "aim": aim}), flush=True)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of `work` until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    with Stopwatch() as watch:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return watch.seconds
