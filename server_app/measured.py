"""The numbers of `normalization='release'`: measured by the server before anybody is asked, and then in the config.

From there they go into the run's folder and to every client, so that all normalise alike, and a run that is resumed or
repeated has the same config bit for bit.
"""

import os
from dataclasses import replace
from logging import INFO, WARNING
from pathlib import Path

import torch
from flwr.common import log

from config.errors import ConfigError
from config.normalization import KEY, MEASURED, given_normalization
from config.run_config import RunConfig
from data.errors import DataError
from data.images.channels import channels_of, spaced
from data.release import TRAIN_LISTS, Release, Split, open_release, training_split
from data.text import one_line
from learning.sound_images import LEAVES_OUT, advising
from server_app.resume import Start


def with_measured(config: RunConfig, start: Start | None, release: Release | None, remote: bool) -> RunConfig:
    """The config with mean and deviation of each channel in it, if it asks for those of its own training images.

    A run that is resumed keeps the numbers that it began with.

    Args:
        config: The run's.
        start: Where it resumes; None for a new run.
        release: The server's data; None if it has opened none.
        remote: Whether clients are real nodes, which may have the images for themselves.

    Raises:
        ConfigError: A server of real nodes has no training images.
        DataError: An image cannot be read; or a channel is the same everywhere.
    """
    if config.normalization != MEASURED:
        return config
    numbers = given_normalization(config.normalization_args)
    if numbers is None and start and start.checkpoint:
        numbers = given_normalization(str(start.checkpoint.config.get(KEY, "")))
    if numbers is None:
        release, split = _training_list(config, release, remote)
        count, of_all = len(spaced(len(split.keys))), len(split.keys)
        some = f"{count:,} of the {of_all:,}" if count < of_all else f"the {of_all:,}"
        log(INFO, "Mean and deviation of each colour channel of %s training images:", some)
        threads, leave_out = torch.get_num_threads(), LEAVES_OUT[config.bad_images]
        with advising(config):
            found = channels_of(release, split, config.image_size, threads, leave_out=leave_out)
        if found.unreadable:
            log(WARNING, "%d images are left out of the measurement; the first: %s", found.unreadable, found.first)
        numbers = found.normalization
        log(INFO, "  normalization-args='%s'", numbers.as_args())
    return replace(config, normalization_args=numbers.as_args())


def _training_list(config: RunConfig, release: Release | None, remote: bool) -> tuple[Release, Split]:
    """The list that clients train on, if this machine has it."""
    root = Path(config.data_dir).expanduser()
    if release is None and config.data_dir and os.access(root, os.F_OK):  # the server has needed none so far
        release = open_release(root)
    if release is None:
        raise ConfigError(_without(config, "the server has no images"))
    if not remote:
        return release, training_split(release, config.train_split)
    try:
        if not release.has(TRAIN_LISTS[config.train_split]):
            raise ConfigError(_without(config, f"{release.root} has none"))
        return release, training_split(release, config.train_split)
    except DataError as error:  # the list may be there without its images
        raise ConfigError(_without(config, one_line(str(error)).removesuffix("."))) from None


def _without(config: RunConfig, why: str) -> str:
    split = "" if config.train_split == "noisy" else f" --train-split {config.train_split}"
    return (
        f"run config: 'normalization' is 'release', which is measured on training images, but {why}; '{KEY}' must give"
        f" mean and deviation, as `python -m data show DIR --normalization --image-size {config.image_size}{split}`"
        " prints them where the training images are, or 'normalization' must be another one."
    )
