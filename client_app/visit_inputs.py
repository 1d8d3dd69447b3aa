"""What a visit trains, and on what: the network on images, or its last layer on features that the client has kept."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from client_app import local_data
from client_app.dealing import release_at
from config.normalization import normalization_of
from config.run_config import RunConfig
from config.stems import stem_of
from data.release import Split
from learning.augmentation import stored_size
from learning.frozen_features import features_of_bodies, heads_of, keeps_features, width_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Method
from learning.replica import Replica
from messages.fingerprint import running_code
from simulation.share import has_room
from task import Compute


@contextlib.contextmanager
def visit_inputs(
    site: local_data.Site, split: Split, method: Method, config: RunConfig, replica: Replica, compute: Compute
) -> Iterator[tuple[nn.Module, Images]]:
    """The model to train, whose weights are those of the replica's, and its inputs, within this block.

    Args:
        site: Where the images are.
        split: Which they are.
        method: The run's.
        config: The run's.
        replica: Of the run's network.
        compute: Device and precision.

    Raises:
        BadImageError: As from `local_data.visited_pixels`.
    """
    if not keeps_features(method, config):
        with _images(site, split, config, compute, stay=True) as images:
            yield replica.model, images
        return

    def features() -> np.ndarray:
        with _images(site, split, config, compute, stay=False) as images:
            inference = Inference(images, config.image_size, compute, normalization_of(config))
            return features_of_bodies(replica.model, inference).cpu().numpy()

    cache, release = local_data.cache_of(site), release_at(site.root)
    size, about, width = _identity(config, replica, compute)
    values = torch.from_numpy(cache.features(release, split.keys, size, about, width, features))
    yield heads_of(replica.model), Features(values, compute.device, stay=has_room(values.nbytes, compute.device))


def has_all_features(
    site: local_data.Site, split: Split, method: Method, config: RunConfig, replica: Replica, compute: Compute
) -> bool:
    """Whether visits need no image, since their features are kept; see `visit_inputs`."""
    cache, release = local_data.cache_of(site), release_at(site.root)
    return (
        keeps_features(method, config)
        and cache.kept_features(release, split.keys, *_identity(config, replica, compute)) is not None
    )


@contextlib.contextmanager
def _images(site: local_data.Site, split: Split, config: RunConfig, compute: Compute, stay: bool) -> Iterator[Images]:
    """The client's images; they stay on a GPU that has room if they are used more than once."""
    # On a CPU, decoding would only take the cores of training.
    with local_data.visited_pixels(site, split, config, beside=compute.device.type != "cpu") as pixels:
        stay = stay and has_room(math.prod(pixels.shape), compute.device)
        yield Images(pixels, compute.device, stay=stay)


def _identity(config: RunConfig, replica: Replica, compute: Compute) -> tuple[int, str, int]:
    """The images' side, all else that decides their features, bit for bit, and how many each has."""
    threads = torch.get_num_threads() if compute.device.type == "cpu" else 0  # they change how convolutions add up
    about = (
        f"{replica.frozen} {config.model} {stem_of(config)} {config.image_size} {normalization_of(config).as_args()}"
        f" {compute} {config.autotune} {threads} {torch.__version__} {running_code()}"
    )
    return stored_size(config.augmentation, config.image_size), about, width_of(replica.model)
