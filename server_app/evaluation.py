"""The clean test set, decoded once, and the model that is evaluated on it after every round."""

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import nn

from config import RunConfig
from data.decoded_cache import GIB, DecodedCache
from data.release import Release
from task import Compute, Evaluation, evaluate


class TestSet:
    """Evaluates global models on clean test."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, release: Release, model: nn.Module, config: RunConfig, compute: Compute) -> None:
        """Decode all of clean test; `model` is moved to `compute.device` and overwritten at each evaluation."""
        split = release.split("clean_test")
        self._labels = split.labels.astype(np.int64)
        cache = DecodedCache(DecodedCache.place(config.cache_dir), int(config.cache_gib * GIB))
        self._images = cache.images(release, split.keys, config.image_size, threads=torch.get_num_threads())
        self._model = model.to(compute.device)
        self._compute = compute
        self._normalization = config.normalization

    def __len__(self) -> int:
        return len(self._labels)

    def evaluate(self, arrays: ArrayRecord) -> Evaluation:
        self._model.load_state_dict(arrays.to_torch_state_dict())
        return evaluate(self._model, self._images, self._labels, self._compute, self._normalization)
