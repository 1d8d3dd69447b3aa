"""Keys to pixels: every image as RGB at one size, in one array."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import DataError
from data.release import Release

MAX_PIXELS = 50_000_000  # per image as stored; a product photo has far fewer, a decompression bomb more
BLOCK = 64  # images that a thread takes at a time

# What Pillow raises on bytes that are no image, or not the whole of one.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def load_images(release: Release, keys: np.ndarray, size: int, threads: int = 1) -> np.ndarray:
    """Decode, convert to RGB and resize, as torchvision's ``Resize((size, size))`` does with a Pillow image.

    Both sides become `size`, whatever the aspect ratio; orientation tags are not applied, as in the published loaders.

    Args:
        release: Where the images lie.
        keys: (n,) bytes.
        size: Side in pixels.
        threads: How many decode at a time; the result does not depend on it.

    Returns:
        (n, size, size, 3) uint8, RGB, in the order of `keys`.

    Raises:
        DataError: A missing, empty, damaged or truncated image; the first one in the order of `keys` is named.
    """
    images = np.empty((len(keys), size, size, 3), np.uint8)

    def load_block(start: int) -> None:
        for row in range(start, min(start + BLOCK, len(keys))):
            images[row] = _load(release.image_path(keys[row]), keys[row], size)

    starts = range(0, len(keys), BLOCK)
    if threads <= 1:
        for start in starts:
            load_block(start)
        return images
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes and resizes without holding the interpreter lock
        for _ in pool.map(load_block, starts):
            pass
    return images


def _load(path: Path, key: bytes, size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            rgb = _to_rgb(image)
    except FileNotFoundError:
        raise DataError(f"image {_name(key)} is missing; it must be at {path}.") from None
    except DAMAGE as error:
        reason = "it is empty" if _is_empty(path) else str(error).replace(f" {str(path)!r}", "")
        raise DataError(
            f"image {_name(key)} cannot be read from {path} ({reason}); it must be a whole image file."
        ) from None
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, alpha dropped as every published loader does."""
    if image.mode == "P" and "transparency" in image.info:
        # The same colours; the straight way to RGB warns for this mode.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _name(key: bytes) -> str:
    return bytes(key).decode("utf-8", "backslashreplace")
