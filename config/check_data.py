"""What is wrong with the settings of a run for the images at hand: number of classes, images per client."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from config.combinations import problem_of_single_images
from config.method_data import opens_data, problem_of_method_data
from config.named import parse_args
from config.run_config import RunConfig
from data.errors import DataError
from data.layout.finding import LIST_FILES, TEXT_FOLDERS
from data.noise.synthetic import corrupt
from data.partition.file import deal
from data.partition.held_out import LEAST, held_out_count
from data.partition.natural import NATURAL
from data.release import TRAIN_LISTS, Release, Split, open_release, training_split
from data.sample import SampleSize, sample_folder
from data.text import one_line

QUICK_BYTES = 8 << 20  # of lists, or of a pack's index; more takes seconds to read


def problems_of_data(config: RunConfig, clients: int | None) -> list[str]:
    """A sentence for each setting that the images refuse.

    Args:
        config: Of which nothing else is wrong.
        clients: In a simulation; None if that is unknown: then their slices are not looked at.
    """
    problems = _problem_of_minimum(config, clients) if clients else []
    try:
        release = _release(config)
        if release is None:
            return problems + _problems_of_a_sample(config, clients)
        problems += _problems_of_lists(release, config.server_lists.values())
        problems += [problem for problem in [problem_of_method_data(config, release)] if problem]
        if clients or release.has(TRAIN_LISTS[config.train_split]):  # a server whose sites train needs no such list
            split = training_split(release, config.train_split)
            problems += _problems_of_slices(config, release, split, clients) if clients else []
            problems += _problem_of_labels(config, split, len(release.class_names))
    except DataError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))


def is_quick(config: RunConfig) -> bool:
    """Whether the data can be read within a fraction of a second."""
    if not config.data_dir:
        return True
    root = Path(config.data_dir).expanduser()
    try:
        if root.is_file():
            return root.stat().st_size < 64 * QUICK_BYTES
        lists = [root / folder / name for folder in TEXT_FOLDERS for name in LIST_FILES.values()]
        return sum(path.stat().st_size for path in lists if path.is_file()) < QUICK_BYTES
    except OSError:  # whoever opens it says why
        return False


def is_elsewhere(config: RunConfig) -> bool:
    """Whether `data-dir` is not on this machine, and a server on real nodes would not miss it."""
    return (
        bool(config.data_dir) and not opens_data(config) and not os.access(Path(config.data_dir).expanduser(), os.F_OK)
    )


def _release(config: RunConfig) -> Release | None:
    """The run's; None for a sample that has not been drawn."""
    if config.data_dir:
        return open_release(Path(config.data_dir).expanduser())
    return open_release(sample_folder()) if sample_folder().is_dir() else None


def _problems_of_lists(release: Release, names: Iterable[str]) -> list[str]:
    problems = []
    for name in names:
        try:
            release.split(name)
        except DataError as error:
            problems.append(str(error))
    return problems


def _problems_of_a_sample(config: RunConfig, clients: int | None) -> list[str]:
    """What its size alone tells, for equal shares."""
    if clients and config.partition == NATURAL:
        return [f"run config: 'partition' is '{NATURAL}', but 'data-dir' is empty, and the drawn sample has no groups."]
    if not clients or config.partition != "iid" or config.train_split != "noisy":
        return []
    images = SampleSize().train
    if clients > images:
        return [f"{clients} clients were asked for, but there are only {images} images; it must be at most {images}."]
    least = images // clients
    left = least - held_out_count(least, config.holdout_fraction)
    return _problem_of_holdout(config, least) or _problem_of_batches(config, left)


def _problems_of_slices(config: RunConfig, release: Release, split: Split, clients: int) -> list[str]:
    args = parse_args("partition-args", config.partition_args)
    problems = []
    try:
        parts = deal(split, config.partition, clients, config.seed, **args)
    except DataError as error:
        given = f", 'partition-args' is {one_line(repr(config.partition_args))}" if args else ""
        problems = [f"run config: 'partition' is {config.partition!r}{given}: {error}"]
    else:
        sizes = [len(part) for part in parts]
        problems = _problem_of_holdout(config, min(sizes)) or _problems_of_sizes(config, sizes)
    on_clean_val = config.fraction_evaluate and config.eval_split == "clean_val"
    if on_clean_val and (images := len(release.split("clean_val").labels)) < clients:
        problems.append(
            f"run config: 'fraction-evaluate' is {config.fraction_evaluate:g}, but clean val has {images} images for"
            f" {clients} clients; it must be 0, or there must be an image for each."
        )
    return problems


def _problem_of_minimum(config: RunConfig, clients: int) -> list[str]:
    """The server would wait for the others for a day."""
    least = parse_args("strategy-args", config.strategy_args).get("min_available_nodes", 1)
    if not isinstance(least, int) or least <= clients:  # a strategy of the user's may take anything
        return []
    return [
        f"run config: 'strategy-args' sets min-available-nodes to {least}, but there are {clients} clients; it must be"
        " at most that."
    ]


def _problem_of_holdout(config: RunConfig, least: int) -> list[str]:
    if not config.holdout_fraction or least >= LEAST:
        return []
    return [
        f"run config: 'holdout-fraction' is {config.holdout_fraction:g}, but the smallest client holds only {least}"
        f" image; it must be 0, or each client must hold at least {LEAST}."
    ]


def _problems_of_sizes(config: RunConfig, sizes: Sequence[int]) -> list[str]:
    """What is wrong with batches, if clients hold so many images."""
    left = [size - held_out_count(size, config.holdout_fraction) for size in sizes]
    alone = problem_of_single_images(config, left)
    return _problem_of_batches(config, min(left)) + ([alone] if alone else [])


def _problem_of_batches(config: RunConfig, least: int) -> list[str]:
    if not config.drop_last or config.batch_size <= least:
        return []
    left = f"{least} image{'s' * (least > 1)}" + (" to train on" if config.holdout_fraction else "")
    return [
        f"run config: 'batch-size' is {config.batch_size}, but the smallest client holds only {left} and 'drop-last'"
        f" leaves incomplete batches out; it must be at most {least}."
    ]


def _problem_of_labels(config: RunConfig, split: Split, classes: int) -> list[str]:
    args = parse_args("label-noise-args", config.label_noise_args)
    try:
        corrupt(split.labels[:1], config.label_noise, classes, 0, 1, config.seed, **args)
    except DataError as error:
        return [f"run config: 'label-noise' is {config.label_noise!r}: {error}"]
    return []
