"""All that Pillow is asked for: images of the formats that we read, its warnings, and RGB of 8 bits from any mode."""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data.errors import DamageError
from data.images.formats import readable
from data.text import one_line

MAX_PIXELS = 50_000_000  # per image as stored; a product photo has far fewer, a decompression bomb more
_ONE_AT_A_TIME = threading.Lock()  # Python's filters of warnings belong to the whole process
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {  # by its value, what brings the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow logs some errors before it raises them; with no handler at all, they would appear without the name of a file.
logging.getLogger("PIL").addHandler(logging.NullHandler())


# Nor its warnings. Whoever wants them is `hearing`, which is not for threads that decode while others work: they share
# one list of filters, and whoever puts it back last would put back the wrong one.
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextlib.contextmanager
def opened(data: bytes, hear: bool = True) -> Iterator[tuple[Image.Image, list[str]]]:
    """An image whose header has been read and whose pixels have not, and what Pillow warned of, if somebody is to hear.

    Raises:
        DamageError: It has more than `MAX_PIXELS` pixels. Pillow raises much else, see `data.images.decode`.
    """
    listening: contextlib.AbstractContextManager[list[str]] = hearing() if hear else contextlib.nullcontext([])
    with listening as heard:
        image = Image.open(io.BytesIO(data), formats=readable())
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise DamageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        yield image, heard


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect warnings instead of letting them appear without the name of a file; those about size are left out."""
    heard: list[str] = []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
    heard += [
        one_line(str(warning.message))
        for warning in caught
        if not isinstance(warning.message, Image.DecompressionBombWarning)  # our own limit is lower
    ]


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB of 8 bits a channel; alpha is dropped as every published loader does.

    Raises:
        DamageError: Nobody knows which of its values is white.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _to_8_bits(image).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # The same colours; converting straight to RGB warns for this mode.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def turn_of(image: Image.Image, hear: bool = True) -> Image.Transpose | None:
    """What brings a photo upright by its orientation tag; None if it has none that makes sense, or is upright."""
    listening: contextlib.AbstractContextManager[list[str]] = hearing() if hear else contextlib.nullcontext([])
    with listening, contextlib.suppress(Exception):  # of EXIF data, which may be anything
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits, scaled so that white stays white: Pillow would cut off what is above 255."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    # Pillow before 12 opens PNGs of 16 bits in mode I; otherwise I and F have whatever range their maker chose.
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")):
        raise DamageError(f"its pixels are of mode {image.mode}, in which white may be any number: save it with 8 bits")
    white = (1 << bits) - 1
    values = np.asarray(image).astype(np.int64).clip(0, white)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values  # Pillow does so only with 8 bits
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
