"""The app's own training loop on random images, as a client's visit runs it."""

from collections.abc import Callable

import torch

from config.run_config import RunConfig
from learning.augmentation import stored_size
from learning.optimizer import LocalSGD
from learning.training import TrainingReport, train_locally
from methods import build_method
from task import Compute, build_model, derived_generator

CLASSES = 14


def our_visit(config: RunConfig, compute: Compute, steps: int, on_device: bool = True) -> Callable[[], TrainingReport]:
    """One visit of `steps` batches in each epoch, to images on the device or copied there ahead of each step."""
    model = build_model(config.model, CLASSES, seed=0).to(compute.device)
    if config.compile:
        model.compile(dynamic=False)
    optimizer = LocalSGD(model)
    count, side = steps * config.batch_size, stored_size(config.augmentation, config.image_size)
    generator = derived_generator(1, "speed")
    images = torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    images = images.to(compute.device) if on_device else images
    labels = torch.randint(CLASSES, (count,), generator=generator)
    method = build_method(config)

    def visit() -> TrainingReport:
        return train_locally(model, images, labels, method, config, compute, generator, optimizer=optimizer)

    return visit
