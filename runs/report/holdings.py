"""Who holds which labels: dealt again as the run dealt them, from its settings and the data, if both are here."""

from typing import Any

import numpy as np

from config.named import parse_args
from config.run_config import ConfigError, RunConfig
from data.confusion import MANY_CLASSES, WORST
from data.errors import DataError
from data.noise.synthetic import corrupt
from data.partition.file import deal
from data.partition.held_out import held_out
from data.release import open_release, training_split
from data.sample import sample_folder
from data.user_cache import below_home
from runs.report.figures import class_name
from runs.run import Run

MOST_CLIENTS = 200  # in a picture


def held_by_clients(run: Run) -> dict[str, Any] | None:
    """Classes by clients, how many images of a label a client trains on; None if the data are not here, or are others.

    Only a run that recorded the list that its clients share is dealt again: sites with folders of their own hold what
    they hold.
    """
    digest = run.record.data.get("train") if run.record else None
    try:
        counts, names = _counts(RunConfig.from_flat(run.config), digest or "")
    except (DataError, ConfigError, OSError, ValueError):
        return None
    classes, clients = counts.shape
    shown = np.arange(classes)
    if classes > MANY_CLASSES:
        shown = np.argsort(-counts.sum(axis=1), kind="stable")[:WORST]
    return {
        "classes": [class_name(names, int(one)) for one in shown],
        "counts": counts[shown, :MOST_CLIENTS].tolist(),
        "images": counts.sum(axis=0)[:MOST_CLIENTS].tolist(),
        "clients": clients,
        "seed": run.config["seed"],
        "of": classes,
    }


def _counts(config: RunConfig, digest: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(classes, clients) int64, and the classes' names.

    Raises:
        DataError: The list of training images is not the one with this digest.
    """
    clients = config.num_clients
    root = below_home(config.data_dir) if config.data_dir else sample_folder()
    release = open_release(root)
    split = training_split(release, config.train_split)
    if split.digest != digest or not clients:
        raise DataError(f"{root} does not hold the list that the run was trained on.")
    parts = deal(split, config.partition, clients, config.seed, **parse_args("partition-args", config.partition_args))
    noise = parse_args("label-noise-args", config.label_noise_args)
    classes = len(release.class_names)
    columns = []
    for client, rows in enumerate(parts):
        labels = corrupt(split.labels[rows], config.label_noise, classes, client, clients, config.seed, **noise)
        trained = ~held_out(split.keys[rows], config.holdout_fraction, config.seed)
        columns.append(np.bincount(labels[trained], minlength=classes))
    return np.stack(columns, axis=1), release.class_names
