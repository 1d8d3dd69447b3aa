"""Turns the bytes of one image file into pixels. Nothing else calls a decoder.

Measured (benchmarks/RESULTS.md): simplejpeg decodes about twice as fast as Pillow, pixel for pixel the same, since
both are libjpeg-turbo; PyTorch's antialiased uint8 resize is three to five times as fast as Pillow's and differs from
it by at most one level in 255. Decoding at a reduced scale is not used: at 224 pixels it gains nothing on photos of
Clothing1M's size, and below 64 pixels it would be up to twice as fast but moves single pixels by more than 60 levels.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.errors import DamageError
from data.images.formats import what_it_is
from data.images.with_pillow import MAX_PIXELS, hearing, opened, to_rgb, turn_of
from data.text import one_line

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow alone gives the same pixels, more slowly
    simplejpeg = None

DECODER = "simplejpeg or Pillow, antialiased bilinear, 2"  # changing this text invalidates caches of decoded pixels
QUALITY = 95  # of JPEGs that we write
REASON = 120  # characters of a decoder's words

# What libjpeg says of a file whose pixels are as they should be.
HARMLESS = re.compile("JFIF revision|bad ICC|Adobe color transform|Invalid SOS parameters|subsampling|color ?space")
# Exceptions whose texts mean something; others show a decoder that lost its way.
SPOKEN = (OSError, SyntaxError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Look:
    """What is to be said of an image that can be decoded.

    Attributes:
        mode: Pillow's name for how its pixels are stored, such as ``RGB``.
        suspect: Why its pixels may not be those that were saved; empty if nothing says so.
        odd: What is wrong with the rest of the file; empty if nothing is.
    """

    mode: str
    suspect: str
    odd: str


def decode(data: bytes) -> np.ndarray:
    """Decode to RGB; grey repeats, alpha is dropped, orientation tags are not applied, as in the published loaders.

    Returns:
        (height, width, 3) uint8.

    Raises:
        DamageError: The bytes are not a whole image, or one of more than `MAX_PIXELS` pixels.
    """
    with _damage_named(data):
        pixels, _ = _jpeg_pixels(data)
        if pixels is not None:
            return pixels
        with opened(data, hear=False) as (image, _):  # it has the last word: simplejpeg is strict about all oddities
            return np.array(to_rgb(image))


def look_at(data: bytes) -> Look:
    """Decode, and listen to what the decoders say.

    libjpeg fills up what it cannot read and warns; PNGs carry checksums, which nobody needs for decoding. Other formats
    have neither, so that only damage that stops their decoders is found.

    Raises:
        DamageError: As from `decode`.
    """
    with _damage_named(data):
        pixels, said = _jpeg_pixels(data)
        with opened(data) as (image, heard):
            mode, is_png, is_jpeg = image.mode, image.format == "PNG", data[:2] == b"\xff\xd8"
            if pixels is None:
                to_rgb(image)
        if pixels is None and is_jpeg and not said:
            said = _libjpeg_says(data)
        if said and not HARMLESS.search(said):
            return Look(mode, one_line(said, REASON), "; ".join(heard))
        suspect = "a checksum inside the PNG is wrong" if is_png and not _is_intact_png(data) else ""
        return Look(mode, suspect, "; ".join([*heard, *([one_line(said, REASON)] if said else [])]))


def as_upright_jpeg(data: bytes) -> tuple[bytes, Look]:
    """An image as a JPEG that stands upright without a tag, unchanged if it is one; and a look at the original.

    Raises:
        DamageError: As from `decode`.
    """
    look = look_at(data)
    with _damage_named(data), opened(data) as (image, _):
        is_jpeg = image.format in ("JPEG", "MPO")
        if not is_jpeg:
            image.load()  # which turns a TIFF
        turn = turn_of(image)
        if is_jpeg and turn is None:
            return data, look
        return _saved(image, turn), look


def upright(data: bytes) -> bytes:
    """A file as it is, whatever it is, unless its orientation tag says that it lies or is mirrored; then a JPEG.

    Unlike `as_upright_jpeg`, this is for threads that decode while others work.
    """
    with contextlib.suppress(DamageError), _damage_named(data), opened(data, hear=False) as (image, _):
        turn = None if image.format == "TIFF" else turn_of(image, hear=False)  # Pillow turns a TIFF as it decodes it
        if turn is not None:
            return _saved(image, turn)
    return data


def _saved(image: Image.Image, turn: Image.Transpose | None) -> bytes:
    pixels, out = to_rgb(image), io.BytesIO()
    (pixels if turn is None else pixels.transpose(turn)).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


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


@contextlib.contextmanager
def _damage_named(data: bytes) -> Iterator[None]:
    """Whatever a decoder raises on one file's bytes is damage of that file."""
    try:
        if not data:
            raise DamageError("it is empty")
        yield
    except DamageError:
        raise
    except Image.DecompressionBombError:
        raise DamageError(f"its pixels are more than {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        raise DamageError(what_it_is(data)) from None
    except Exception as error:
        text = str(error) if isinstance(error, SPOKEN) else ""
        said = f"its decoder says {one_line(text, REASON)!r}" if text else "its decoder fails"
        raise DamageError("it is truncated" if "truncated" in text.lower() else said) from None


def _jpeg_pixels(data: bytes) -> tuple[np.ndarray | None, str]:
    """The pixels of a sound JPEG of a common kind, else None and what libjpeg says against it, if that is known."""
    if simplejpeg is None or data[:3] != b"\xff\xd8\xff":
        return None, ""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if height * width <= MAX_PIXELS and space in ("YCbCr", "Gray"):
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB")), ""
    except ValueError as error:
        return None, str(error)
    return None, ""


def _libjpeg_says(data: bytes) -> str:
    """What it has against a JPEG of an uncommon kind, whose pixels come from Pillow."""
    if simplejpeg is None:
        return ""
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data)
        simplejpeg.decode_jpeg(data, "CMYK" if space in ("CMYK", "YCCK") else "RGB")
    except ValueError as error:
        return str(error)
    return ""


def _is_intact_png(data: bytes) -> bool:
    try:
        with hearing(), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()
    except Exception:  # its pixels could be decoded: all that is left is a checksum
        return False
    return True
