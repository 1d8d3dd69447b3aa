"""Clean lists, decoded once, on which the global model is evaluated after every round."""

import contextlib
import hashlib
from functools import partial
from logging import WARNING

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import log
from torch import nn

from config.normalization import normalization_of
from config.run_config import RunConfig
from data.errors import DataError
from data.images.decoded_cache import GIB, DecodedCache
from data.images.pixels import Pixels
from data.release import Release, Split
from learning.evaluation import Evaluation, evaluate
from learning.server_half import ServerHalf
from learning.shared_state import load_shared
from learning.sound_images import advising, sound_images
from task import Compute


class CleanSet:
    """Evaluates global models on one clean list."""

    def __init__(self, release: Release, split: str, model: nn.Module, config: RunConfig, compute: Compute) -> None:
        """Decode the whole list; `model` is moved to `compute.device` and overwritten at each evaluation.

        Raises:
            DataError: An image cannot be read, and `bad-images` is `refuse`; or none can.
        """
        listed, self._images = load_list(release, split, config.image_size, config)
        self._labels = listed.labels.astype(np.int64)
        self._model = model.to(compute.device)
        self._compute = compute
        self._normalization = normalization_of(config)

    def __len__(self) -> int:
        return len(self._labels)

    def evaluate(self, arrays: ArrayRecord) -> Evaluation:
        load_shared(self._model, arrays.to_torch_state_dict())
        return evaluate(self._model, self._images, self._labels, self._compute, self._normalization)


def clean_sets_of(
    release: Release | None, model: nn.Module, config: RunConfig, compute: Compute
) -> dict[str, CleanSet]:
    """The lists on which the server evaluates, by what for, as in `RunConfig.server_lists`; see `CleanSet`."""
    if release is None:
        return {}
    return {purpose: CleanSet(release, split, model, config, compute) for purpose, split in config.server_lists.items()}


def load_list(release: Release, split: str, size: int, config: RunConfig) -> tuple[Split, Pixels]:
    """A list of the server's own, without images that cannot be read, and its pixels.

    Args:
        release: The server's.
        split: One of its lists.
        size: Side of the decoded images.
        config: The run's.

    Raises:
        DataError: There is no such list; an image cannot be read, and `bad-images` is `refuse`; or none can.
    """
    folder, most = DecodedCache.place(config.cache_dir), int(config.cache_gib * GIB)
    cache, threads = DecodedCache(folder, most, partial(log, WARNING)), torch.get_num_threads()
    listed, bad = sound_images(release, release.split(split), size, cache, config, threads)
    if bad:
        left = len(listed.keys)
        log(WARNING, "%s: %d images are left out, and %d remain; the first: %s", split, len(bad), left, bad[0])
    with advising(config):
        return listed, cache.pixels(release, listed.keys, size, threads)


def data_digests(release: Release | None, config: RunConfig, half: ServerHalf) -> dict[str, str]:
    """Digests of what a run's results depend on in the server's data, by name: a resumed run must have the same.

    A server that has opened none has no part in them.
    """
    if release is None:
        return {}
    digests = {split: release.split(split).digest for split in config.server_lists.values()}
    if config.fraction_evaluate and config.eval_split == "clean_val":
        with contextlib.suppress(DataError):  # the clients may have one
            digests["clean_val"] = release.split("clean_val").digest
    if half.needs_data:  # it may read any list
        index = release.index
        content = hashlib.sha256(b"\n".join(index.keys.tolist()))
        content.update(repr(index.counts).encode())  # where one list ends and the next begins
        for labels in (index.noisy, index.clean):
            content.update(np.ascontiguousarray(labels, dtype="<i4").tobytes())
        digests["one of the lists"] = content.hexdigest()[:16]
    return digests
