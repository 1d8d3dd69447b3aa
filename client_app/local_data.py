"""The images that this client holds, and their pixels, decoded once."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common import log

from client_app.dealing import Deal, digest_of, partition_of, release_at, with_label_noise
from config.run_config import RunConfig
from data.errors import DataError
from data.images.decoded_cache import GIB, DecodedCache
from data.images.loading import DECODE_SECONDS, pack_of_pixels
from data.images.pixels import Pixels
from data.partition.held_out import LEAST, held_out, held_out_count
from data.partition.schemes import partition
from data.release import Split, training_split
from data.sample import default_sample
from data.user_cache import below_home
from learning.augmentation import stored_size
from learning.sound_images import advising, sound_images
from messages.keys import NUM_PARTITIONS, PARTITION_ID

LOOKED_AT = 20_000  # images of a training list that the roll call decodes; those of more, their client's first visit
# Threads that decode while a GPU trains: 16 hardly decode faster, and keep what launches its work from the interpreter.
DECODING_BESIDE = 2


@dataclass(frozen=True)
class Site:
    """Where a client's images come from.

    Attributes:
        root: A folder in the released layout, or a pack.
        partition_id: Which slice of it; -1 for all of it, at a real site with a folder of its own.
        num_partitions: Number of slices; 1 for a site with a folder of its own.
        cache_dir: Where decoded images are kept.
        cache_bytes: Upper limit for them.
        run: The same for all processes of a run; empty: the cache takes each process for a run.
    """

    root: Path
    partition_id: int
    num_partitions: int
    cache_dir: Path
    cache_bytes: int
    run: str = ""

    @classmethod
    def resolve(cls, node_config: Mapping[str, Any], config: RunConfig, run: str = "") -> "Site":
        """Works for simulated and real nodes alike: `partition-id` and `num-partitions` come from the node; the node's
        `data-dir`, `cache-dir` and `cache-gib` override the run's.

        Raises:
            DataError: Only one of `partition-id` and `num-partitions` is given, or the id is out of range.
        """
        root = str(node_config.get("data-dir") or config.data_dir)
        path = below_home(root) if root else default_sample()
        cache = _cache_of(node_config, config)
        given = [key for key in (PARTITION_ID, NUM_PARTITIONS) if key in node_config]
        if not given:
            return cls(path, -1, 1, *cache, run)
        if len(given) == 1:
            raise DataError(
                f"node config: '{given[0]}' is given alone; set both 'partition-id' and 'num-partitions', or neither."
            )
        partition_id, count = (int(node_config[key]) for key in given)
        if not 0 <= partition_id < count:
            raise DataError(f"node config: 'partition-id' is {partition_id}; it must be from 0 to {count - 1}.")
        return cls(path, partition_id, count, *cache, run)


def training_data(site: Site, config: RunConfig) -> Split:
    """Keys and labels that this client trains on; `pixels` loads the images.

    Raises:
        DataError: The release cannot be read, there are more clients than images, or of one image none is left beside
            what is held out; a batch is larger than what is left; or `bad-images` is `skip` and no image can be read.
    """
    split, _ = _sound(site, _parts(site, config)[0], _stored(config), config)
    if config.drop_last and (least := len(split.labels)) < config.batch_size:
        left = f" {least} image{'s' * (least > 1)}" + (" to train on" if config.holdout_fraction else "")
        raise DataError(
            f"run config: 'batch-size' is {config.batch_size}, but {_holder(site)} holds only{left} and 'drop-last'"
            f" leaves incomplete batches out; it must be at most {least}."
        )
    return split


def held_out_data(site: Site, config: RunConfig) -> Split:
    """Those of its images that this client never trains on, with `holdout-fraction`; their labels are as noisy.

    Empty if none can be read and `bad-images` is `skip`, which keeps nobody from training.

    Raises:
        DataError: It has too few images.
    """
    return _held_out(site, config)[0]


def evaluation_data(site: Site, config: RunConfig) -> Split:
    """The images that this client evaluates on in every round: its equal share of clean val, or what it holds out.

    Raises:
        DataError: Clean val has too few images, none can be read, or what `training_data` refuses.
    """
    if config.eval_split == "own":
        own, bad = _held_out(site, config)
        if len(own.keys):
            return own
        raise DataError(f"none of {len(bad)} held-out images of {_holder(site)} can be read; the first: {bad[0]}")
    return _sound(site, _slice_of_clean_val(site, config), config.image_size, config)[0]


def bad_images(site: Site, config: RunConfig) -> list[str]:
    """A sentence for each image that is missing from those above because it cannot be read."""
    bad = _sound(site, _parts(site, config)[0], _stored(config), config)[1] + _held_out(site, config)[1]
    if _needs_clean_val(config):
        bad += _sound(site, _slice_of_clean_val(site, config), config.image_size, config)[1]
    return bad


def look_at_images(site: Site, config: RunConfig, trained_on: bool = True) -> None:
    """Decode this client's images into the cache, unless the release has too many of them for a roll call; in a pack of
    pixels, verify their checksums.

    Args:
        site: Where they are.
        config: The run's.
        trained_on: Whether those that it trains on are needed, and not only features that it has kept.

    Raises:
        BadImageError: One cannot be read, and `bad-images` is `refuse`.
    """
    _say_what_is_not_kept(site, config)
    if len(training_split(release_at(site.root), config.train_split).labels) > LOOKED_AT:
        return
    if trained_on:
        training_pixels(site, training_data(site, config), config)
    if config.holdout_fraction and len((own := held_out_data(site, config)).keys):
        pixels(site, own, config.image_size, config)
    if _needs_clean_val(config):
        pixels(site, evaluation_data(site, config), config.image_size, config)


def _say_what_is_not_kept(site: Site, config: RunConfig) -> None:
    """A real site's log says if its cache is too small; of a simulation's clients, the server's does."""
    if site.partition_id >= 0:
        return
    release, size = release_at(site.root), _stored(config)
    images = len(training_split(release, config.train_split).labels)
    own = held_out_count(images, config.holdout_fraction)
    needed = 3 * ((images - own) * size**2 + own * config.image_size**2)
    if needed > site.cache_bytes and pack_of_pixels(release, size) is None:
        log(
            WARNING,
            "The cache cannot hold the %s training images: decoded, they take %.3g GiB, and 'cache-gib' is %.3g. Each"
            " visit decodes them anew, in about %.0f s of one core.",
            f"{images:,}", needed / GIB, site.cache_bytes / GIB, images * DECODE_SECONDS,
        )  # fmt: skip


def _dealt(site: Site, config: RunConfig) -> Split:
    split = training_split(release_at(site.root), config.train_split)
    if site.partition_id >= 0:
        split = split.take(partition_of(*_deal_of(site, config))[site.partition_id])
    classes, client = len(class_names(site)), max(site.partition_id, 0)
    # Of all images, so that no label depends on who can be read.
    return with_label_noise(split, config, classes, client, site.num_partitions)


def _parts(site: Site, config: RunConfig) -> tuple[Split, Split]:
    """What this client trains on, and what it holds out: drawn before anybody looks which of them can be read.

    Raises:
        DataError: It has too few images to do both.
    """
    split = _dealt(site, config)
    if not config.holdout_fraction:
        return split, split.take(np.arange(0))
    if len(split.keys) < LEAST:
        raise DataError(
            f"run config: 'holdout-fraction' is {config.holdout_fraction:g}, but {_holder(site)} holds only"
            f" {len(split.keys)} image; it must be 0, or each client must hold at least {LEAST}."
        )
    own = held_out(split.keys, config.holdout_fraction, config.seed)
    return split.take(np.flatnonzero(~own)), split.take(np.flatnonzero(own))


def _needs_clean_val(config: RunConfig) -> bool:
    return config.fraction_evaluate > 0 and config.eval_split == "clean_val"


def _slice_of_clean_val(site: Site, config: RunConfig) -> Split:
    split = release_at(site.root).split("clean_val")
    if site.partition_id < 0:
        return split
    if len(split.labels) < site.num_partitions:
        raise DataError(
            f"run config: 'fraction-evaluate' is {config.fraction_evaluate:g}, but clean val has {len(split.labels)}"
            f" images for {site.num_partitions} clients; it must be 0, or there must be an image for each."
        )
    return split.take(partition("iid", split.labels, site.num_partitions, config.seed)[site.partition_id])


def deal_digest(site: Site, config: RunConfig) -> str:
    """16 hex digits, the same wherever the same list with the same labels is dealt alike; empty for a site."""
    return digest_of(*_deal_of(site, config)) if site.partition_id >= 0 else ""


def class_names(site: Site) -> tuple[str, ...]:
    return release_at(site.root).class_names


def pixels(site: Site, split: Split, size: int, config: RunConfig) -> Pixels:
    """The split's images, decoded at most once while the cache has space; those that are in a file are not copied.

    Raises:
        BadImageError: One cannot be read, and `bad-images` is `refuse`.
        DataError: What `data.images.loading.load_images` refuses for another reason.
    """
    with advising(config):
        return cache_of(site).pixels(release_at(site.root), split.keys, size, threads=torch.get_num_threads())


def training_pixels(site: Site, split: Split, config: RunConfig) -> Pixels:
    """The images that this client trains on, see `pixels`."""
    return pixels(site, split, _stored(config), config)


@contextlib.contextmanager
def visited_pixels(site: Site, split: Split, config: RunConfig, beside: bool) -> Iterator[Pixels]:
    """The images that this client trains on in this block.

    Args:
        site: Where they are.
        split: Which they are.
        config: The run's.
        beside: Whether those that must be decoded may arrive while others are used: at the end all must have been
            good, and after an error no more are decoded.

    Raises:
        BadImageError: As from `pixels`, here or where an image is used.
    """
    if not beside:
        yield training_pixels(site, split, config)
        return
    threads = min(torch.get_num_threads(), DECODING_BESIDE)
    with advising(config):
        found = cache_of(site).arriving(release_at(site.root), split.keys, _stored(config), threads)
        try:
            yield found
            found.finish()
        except BaseException:
            found.stop()
            raise


def _holder(site: Site) -> str:
    """Whoever has the images, in a sentence."""
    return f"partition {site.partition_id}" if site.partition_id >= 0 else f"'{site.root}'"


def _stored(config: RunConfig) -> int:
    return stored_size(config.augmentation, config.image_size)


def _held_out(site: Site, config: RunConfig) -> tuple[Split, list[str]]:
    own = _parts(site, config)[1]
    return _sound(site, own, config.image_size, config, one_must_remain=False) if config.holdout_fraction else (own, [])


def _sound(site: Site, split: Split, size: int, config: RunConfig, **rules: bool) -> tuple[Split, list[str]]:
    return sound_images(release_at(site.root), split, size, cache_of(site), config, torch.get_num_threads(), **rules)


def _cache_of(node_config: Mapping[str, Any], config: RunConfig) -> tuple[Path, int]:
    gib = node_config.get("cache-gib", config.cache_gib)
    if isinstance(gib, bool) or not isinstance(gib, (int, float)) or not 0 <= gib < float("inf"):
        raise DataError(f"node config: 'cache-gib' is {gib!r}; it must be a number of at least 0.")
    return DecodedCache.place(str(node_config.get("cache-dir") or config.cache_dir)), int(gib * GIB)


def cache_of(site: Site) -> DecodedCache:
    return _cache(site.cache_dir, site.cache_bytes, site.run)


@lru_cache(maxsize=4)
def _cache(folder: Path, max_bytes: int, run: str) -> DecodedCache:
    return DecodedCache(folder, max_bytes, partial(log, WARNING), run)


def _deal_of(site: Site, config: RunConfig) -> Deal:
    return site.root, config.train_split, site.num_partitions, config.seed, config.partition, config.partition_args
