"""The `flwr run` line that fits a release: as many clients, and batches as small, as its images allow."""

import shlex
from collections.abc import Container
from pathlib import Path

import numpy as np

from data.layout.finding import SPLITS
from data.release import Release

IMAGES = 64  # for each client, at least, where there are enough
MOST_CLIENTS = 10
BATCH = 16  # the run config's own
SMALLEST = 16  # pixels: of the run config's `image-size`
SMALL = 64  # pixels: images of at most this size are trained on as they are
LOOKED_AT = 9  # images, evenly spaced
TRAINING = 2  # clients in a round, at least; with one, nothing would be averaged


def run_line(
    release: Path, train_images: int, lists: Container[str] = SPLITS, image_size: int | None = None
) -> str | None:
    """A line for the shell; None if there are too few images, or if no line could hold the path.

    Args:
        release: Its folder.
        train_images: How many images the clients hold together.
        lists: Those that it has; without clean ones there is nothing to test or to validate on.
        image_size: In pixels, where the run config's own does not suit its images; see `image_size_for`.
    """
    clients = min(MOST_CLIENTS, max(TRAINING, train_images // IMAGES))
    held = train_images // clients
    path = str(release)
    if held < 2 or ("'" in path and set(path) & set('"\\')) or not path.isprintable():
        return None
    quote = '"' if "'" in path else "'"
    config = [f"data-dir={quote}{path}{quote}"]
    if image_size:
        config.append(f"image-size={image_size}")
    if clients < MOST_CLIENTS:
        config.append(f"fraction-train={1.0 if clients < 5 else 0.5}")
    if held < 2 * BATCH:  # two steps an epoch, where that is possible
        config.append(f"batch-size={max(2, 1 << (held // 2).bit_length() - 1)}")
    missing = {"clean_test": "test-split", "clean_val": "val-split"}
    config += [f"{key}='none'" for name, key in missing.items() if name not in lists]
    federation = f"num-supernodes={clients} client-resources-num-cpus=1"
    return f'flwr run . --stream --federation-config "{federation}" -c {_for_the_shell(" ".join(config))}'


def image_size_for(release: Release, name: str) -> int | None:
    """The side of a pack of pixels, or of a list's images if they are small; None: that of the run config will do.

    Raises:
        DataError: An image cannot be read, or the list is not there.
    """
    from data.images.decode import decode

    if side := getattr(release.store, "decoded_size", 0):
        return int(side)
    keys = release.split(name).keys
    some = keys[np.unique(np.linspace(0, len(keys) - 1, LOOKED_AT).astype(np.int64))]
    side = int(np.median([min(decode(release.store.encoded(key)).shape[:2]) for key in some]))
    return max(SMALLEST, side) if side <= SMALL else None


def _for_the_shell(text: str) -> str:
    """In double quotes, as in the documentation, where that is safe."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
