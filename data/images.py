"""Keys to pixels: every image as RGB at one size, in one array."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.decode import DAMAGE, decode, resize
from data.errors import DataError
from data.key_files import show
from data.pack import PackStore
from data.release import Release
from data.stores import Store

BLOCK = 64  # images that a thread takes at a time


def load_images(
    release: Release, keys: np.ndarray, size: int, threads: int = 1, out: np.ndarray | None = None
) -> np.ndarray:
    """Decode, convert to RGB and resize, as torchvision's ``Resize((size, size))`` does, to one level in 255.

    Both sides become `size`, whatever the aspect ratio; orientation tags are not applied, as in the published loaders.

    Args:
        release: Where the images lie.
        keys: (n,) bytes.
        size: Side in pixels.
        threads: How many decode at a time; the result does not depend on it.
        out: (n, size, size, 3) uint8 to write to instead of a new array.

    Returns:
        (n, size, size, 3) uint8, RGB, in the order of `keys`.

    Raises:
        DataError: A missing, empty, damaged or truncated image, the first one in the order of `keys`; or a pack of
            decoded pixels of another size.
    """
    images = np.empty((len(keys), size, size, 3), np.uint8) if out is None else out
    store = release.store
    decoded = isinstance(store, PackStore) and store.decoded_size
    if decoded and decoded != size:
        raise DataError(
            f"{release.root} holds pixels of {decoded} x {decoded}; images of {size} are asked for (crops take 8/7 of"
            f" 'image-size'), so pack at {size}, or without --decoded."
        )

    def load_block(start: int) -> None:
        for row in range(start, min(start + BLOCK, len(keys))):
            if isinstance(store, PackStore) and decoded:
                images[row] = store.pixels(keys[row])
            else:
                images[row] = load_image(store, keys[row], size)

    starts = range(0, len(keys), BLOCK)
    if threads <= 1:
        for start in starts:
            load_block(start)
        return images
    with ThreadPoolExecutor(threads) as pool:  # both libraries decode and resize without the interpreter lock
        for _ in pool.map(load_block, starts):
            pass
    return images


def load_image(store: Store, key: bytes, size: int) -> np.ndarray:
    """One image as (size, size, 3) uint8.

    Raises:
        DataError: It is missing or damaged.
    """
    data = store.encoded(key)
    try:
        return resize(decode(data), size, size)
    except DAMAGE as error:
        reason = str(error).partition(" <_io.")[0]
        raise DataError(
            f"image {show(key)} cannot be read from {store.place(key)} ({reason}); it must be a whole image file."
        ) from None
