"""Lets the server half of a method train the global model on the server's own images."""

import time
from functools import cache, partial
from logging import INFO

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import log
from torch import nn

from config.run_config import RunConfig
from data.release import Release
from learning.augmentation import stored_size
from learning.images import Images
from learning.server_half import OwnList, ServerHalf, Workbench
from learning.shared_state import load_shared, shared_state
from messages.arrays import all_finite, as_numpy
from server_app.clean_sets import load_list
from server_app.stopping import RunStoppedError
from task import Compute, derived_generator

FROM_CLIENTS = "although all replies were finite; a smaller server learning rate in 'strategy-args' may help"


class ServerTraining:
    """A step of training between aggregation and evaluation."""

    def __init__(
        self, half: ServerHalf, release: Release, model: nn.Module, config: RunConfig, compute: Compute
    ) -> None:
        """Decode nothing yet; `model` is moved to `compute.device` and overwritten in each step."""
        self._half = half
        self._model = model.to(compute.device)
        self._workbench = Workbench(
            config,
            compute,
            cache(partial(own_list, release, config, compute)),
            lambda server_round, purpose: derived_generator(config.seed, f"server training, {purpose}", server_round),
        )

    def step(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """The global model after a round's training on the server; `arrays` is emptied.

        Args:
            server_round: From 1; 0 before the first round.
            arrays: The aggregated model.

        Raises:
            RunStoppedError: The aggregated model is not finite, or training has made it so.
        """
        check_finite(arrays, server_round, FROM_CLIENTS)  # else training would be blamed
        began = time.perf_counter()
        load_shared(self._model, arrays.to_torch_state_dict())
        arrays.clear()  # it is part of reference cycles, see `take_arrays`
        try:
            self._half.train(server_round, self._model, self._workbench)
        except FloatingPointError as error:
            raise RunStoppedError(f"{_when(server_round)}: training on the server: {error}.") from None
        trained = ArrayRecord(shared_state(self._model))
        check_finite(trained, server_round, "after training on the server; a smaller 'learning-rate' may help")
        if not server_round:
            log(INFO, "The server has trained for %.0f s; round 1 begins.", time.perf_counter() - began)
        return trained


def check_finite(arrays: ArrayRecord, server_round: int, why: str = FROM_CLIENTS) -> None:
    """Check a global model.

    Args:
        arrays: It.
        server_round: After which it is the global model.
        why: Ends the sentence.

    Raises:
        RunStoppedError: It can never recover.
    """
    for name, array in arrays.items():
        if not all_finite(as_numpy(array)):
            raise RunStoppedError(
                f"{_when(server_round)}: the new global model holds a value that is not finite ({name!r}), {why}."
            )


def own_list(release: Release, config: RunConfig, compute: Compute, name: str) -> OwnList:
    """A list of the server's release, decoded at the size from which the run's augmentation cuts.

    Raises:
        DataError: There is no such list, or an image cannot be read.
    """
    listed, pixels = load_list(release, name, stored_size(config.augmentation, config.image_size), config)
    sound = np.isin(release.split(name).keys, listed.keys)
    carried = release.index.noisy[release.index.rows(name)][sound]
    labels, noisy = (torch.from_numpy(one.astype(np.int64)) for one in (listed.labels, carried))
    log(INFO, "The server trains on %d images of %s.", len(labels), name)
    return OwnList(Images(pixels, compute.device), labels, noisy)


def _when(server_round: int) -> str:
    return f"round {server_round}" if server_round else "before round 1"
