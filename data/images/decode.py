"""Turns the bytes of one image file into pixels of a given size.

Measured (benchmarks/RESULTS.md): simplejpeg decodes about twice as fast as Pillow, pixel for pixel the same, since
both are libjpeg-turbo; PyTorch's antialiased uint8 resize is three to five times as fast as Pillow's and differs from
it by at most one level in 255. Decoding at a reduced scale is not used: at 224 pixels it gains nothing on photos of
Clothing1M's size, and below 64 pixels it would be up to twice as fast but moves single pixels by more than 60 levels.
"""

import io
import struct

import numpy as np
from PIL import Image

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow alone gives the same pixels, more slowly
    simplejpeg = None

MAX_PIXELS = 50_000_000  # per image as stored; a product photo has far fewer, a decompression bomb more
DECODER = "simplejpeg or Pillow, antialiased bilinear, 1"  # changing this text invalidates caches of decoded pixels

# What Pillow raises on bytes that are not an image, or not a whole one.
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


def decode(data: bytes) -> np.ndarray:
    """Decode to RGB; grey repeats, alpha is dropped, orientation tags are not applied, as in the published loaders.

    Returns:
        (height, width, 3) uint8.

    Raises:
        DAMAGE: The bytes are not an image, not a whole one, or one of more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise ValueError("it is empty")
    if simplejpeg is not None and data[:3] == b"\xff\xd8\xff":
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            if height * width <= MAX_PIXELS and space in ("YCbCr", "Gray"):
                return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError:
            pass  # it is strict about everything odd in a file; Pillow has the last word on what is damage
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        return np.array(_to_rgb(image))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as torchvision's ``Resize`` does: bilinear, antialiased.

    Args:
        image: (h, w, 3) uint8.
        height: Of the result in pixels.
        width: Of the result in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    if image.shape[:2] == (height, width):
        return image
    import torch  # slow to import, and not needed to read text files

    batch = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # in this order PyTorch sees, and keeps, channels-last
    resized = torch.nn.functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)[0].numpy()


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, alpha dropped as every published loader does."""
    if image.mode == "P" and "transparency" in image.info:
        # The same colours; converting straight to RGB warns for this mode.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
