"""The image formats that are read, whatever a file is called.

Pillow knows forty more, some of which start other programs (Ghostscript, for PostScript) or have decoders that nobody
tends: they are never tried. Suffixes can be looked at without loading Pillow.
"""

import contextlib
import functools

from data.text import beginning

# By Pillow's name, the suffixes that such files have.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
NEEDS = {  # to be read, where this Python does not
    "AVIF": "Pillow 11.3 or later",
    "HEIF": "`pip install pillow-heif`",
    "WEBP": "a Pillow that was built with WebP",
}
BRANDS = {  # of files in ISO's media format, whose bytes 4 to 12 are "ftyp" and one of these
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
}


@functools.cache
def readable() -> tuple[str, ...]:
    """Those of `SUFFIXES` for which this Python has a decoder."""
    from PIL import Image, features

    with contextlib.suppress(ImportError):  # HEIC, which phones write, needs it; nothing else does
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    built = {"AVIF": features.check("avif") if "AVIF" in Image.OPEN else False, "WEBP": features.check("webp")}
    return tuple(name for name in SUFFIXES if name in Image.OPEN and built.get(name, True))


def all_suffixes() -> frozenset[str]:
    """Of image files, in lower case, whether this Python reads them or not."""
    return frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def read_suffixes() -> tuple[str, ...]:
    """Of files that this Python reads, in lower case."""
    return tuple(suffix for name in readable() for suffix in SUFFIXES[name])


def needed_for(suffix: str) -> str:
    """What a file with this suffix needs before it can be read; empty if nothing, or if it is not an image's."""
    return next((NEEDS[name] for name in NEEDS if suffix in SUFFIXES[name] and name not in readable()), "")


def what_it_is(data: bytes) -> str:
    """Why no decoder knows this file, as the end of a sentence about it."""
    brand = BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""
    name = brand or next((name for name in readable() if _begins_like(data, name)), "")
    if name and name not in readable():
        return f"it is {name}, which needs {NEEDS[name]}"
    if name:
        return f"it begins like {name}, but its header is damaged or of a kind that is not read"
    return f"it begins with {beginning(data)}, like none of {', '.join(readable())}"


def _begins_like(data: bytes, name: str) -> bool:
    from PIL import Image

    accept = Image.OPEN[name][1]
    return accept is not None and accept(data[:16]) is True
