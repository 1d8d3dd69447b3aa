"""Whatever is wrong with a file's bytes is said of that file, its pixels are right, and no other program is started."""

import io
import logging
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageCms

from data.errors import DamageError
from data.images import decode as decoding
from data.images import formats
from data.images.decode import Look, as_upright_jpeg, decode, look_at
from data.images.formats import SUFFIXES, needed_for, read_suffixes, readable

SOUND = Look("RGB", suspect="", odd="")


def photo(width: int = 90, height: int = 120, seed: int = 0) -> Image.Image:
    """Smooth shapes with some grain, so that a JPEG of it has a scan of a few thousand bytes."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.integers(-6, 7, (height, width, 3))
    return Image.fromarray((np.asarray(shapes).astype(int) + grain).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image | None = None, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    (image or photo()).save(out, kind, **options)
    return out.getvalue()


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
JPEG = saved()
HARMLESS = {
    "plain": JPEG,
    "bytes after the end": JPEG + b"uploaded by somebody" * 40,
    "zeros after the end": JPEG + bytes(1000),
    "two ends": JPEG + b"\xff\xd9",
    "progressive": saved(progressive=True),
    "optimised": saved(optimize=True),
    "full colour": saved(subsampling=0),
    "RGB inside": saved(keep_rgb=True),
    "restart markers": saved(restart_marker_blocks=4),
    "a profile": saved(icc_profile=ICC),
    "a profile in pieces": saved(icc_profile=ICC * 200),
    "EXIF": saved(exif=Image.Exif()),
    "two pictures": saved(kind="MPO", save_all=True, append_images=[photo(seed=2)]),
    "PNG": saved(kind="PNG"),
    "PNG and more": saved(kind="PNG") + b"more",
    "WebP": saved(kind="WEBP"),
    "BMP": saved(kind="BMP"),
    "TIFF": saved(kind="TIFF"),
}


def overwritten(data: bytes, place: int, content: bytes) -> bytes:
    return data[:place] + content + data[place + len(content) :]


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_no_false_alarm(data: bytes) -> None:
    assert look_at(data) == SOUND


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_libjpeg_fills_up_is_suspect(options: dict[str, Any], mode: str) -> None:
    data = saved(photo().convert(mode), **options)
    damaged = overwritten(data, len(data) // 2, bytes(300))
    assert look_at(data) == Look(mode, suspect="", odd="")
    look = look_at(damaged)
    assert look.mode == mode
    assert "Corrupt JPEG data" in look.suspect
    assert decode(damaged).shape == (120, 90, 3)  # a run can go on with it


def test_odd_metadata_is_no_damage_of_pixels() -> None:
    revision = JPEG.replace(b"JFIF\x00\x01\x01", b"JFIF\x00\x03\x01")
    assert look_at(revision) == Look("RGB", suspect="", odd="Warning: unknown JFIF revision number 3.01")
    cut = saved(exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x50")
    look = look_at(cut)
    assert look.suspect == ""
    assert look.odd.startswith("Corrupt EXIF data")


def test_checksums_inside_a_png() -> None:
    data = saved(kind="PNG")
    place = data.index(b"IDAT") + 4 + int.from_bytes(data[data.index(b"IDAT") - 4 : data.index(b"IDAT")], "big")
    damaged = overwritten(data, place, b"\x00\x00\x00\x00")
    assert look_at(damaged) == Look("RGB", suspect="a checksum inside the PNG is wrong", odd="")


def test_without_simplejpeg_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: decode(data) for name, data in HARMLESS.items()}
    monkeypatch.setattr(decoding, "simplejpeg", None)
    for name, data in HARMLESS.items():
        assert np.array_equal(decode(data), before[name]), name
        assert look_at(data) == SOUND


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("kind", [kind for kind in SUFFIXES if kind != "HEIF" and kind in readable()])
def test_random_damage_is_one_error_or_a_picture(kind: str, data: st.DataObject) -> None:
    """Warnings are errors here: none may pass either."""
    whole = bytearray(KINDS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, min(400, len(whole) - 1)))
        whole[place : place + 1] = data.draw(st.binary(min_size=0, max_size=3))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        pixels = decode(damaged)
    except DamageError:
        for other in (look_at, as_upright_jpeg):
            with pytest.raises(DamageError, match=r"^[ -~]+$"):
                other(damaged)
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    look_at(damaged)
    upright, _ = as_upright_jpeg(damaged)
    assert upright[:3] == b"\xff\xd8\xff"


KINDS = {kind: saved(photo(40, 30), kind) for kind in SUFFIXES if kind != "HEIF" and kind in readable()}


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyError(3), AssertionError(), MemoryError(), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_is_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(decoding, "to_rgb", fail)
    said = "its decoder says 'x'" if isinstance(error, RuntimeError) else "its decoder fails"
    with pytest.raises(DamageError, match=f"^{said}$"):
        decode(saved(kind="PNG"))


def test_a_bad_frame_of_an_avif() -> None:
    data = KINDS["AVIF"]
    damaged = overwritten(data, data.index(b"mdat") + 8, b"\xff" * 40)
    with pytest.raises(DamageError, match="its decoder says"):
        decode(damaged)


def test_pillow_says_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """Where no handler of logging is installed, as in `python -m data`."""
    many = tiff(8, bytes(16)).replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 46595))
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with pytest.raises(DamageError, match=r"^it begins like TIFF"):
            decode(many)
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


def test_no_other_format_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every format that Pillow writes and we do not read, PostScript with its Ghostscript among them."""
    tried: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: tried.append(given))
    Image.init()
    refused = set()
    for kind in sorted(set(Image.SAVE) - set(SUFFIXES) - {"MPO"}):  # MPO is JPEG and more JPEGs
        try:
            data = saved(photo().convert("L" if kind == "MSP" else "RGB"), kind)
        except (OSError, KeyError, ValueError, DeprecationWarning):  # it needs something that is not there
            continue
        with pytest.raises(DamageError, match="it begins"):
            decode(data)
        refused.add(kind)
    assert {"EPS", "PDF", "PPM", "TGA"} <= refused
    assert not tried


def test_files_that_need_more_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "readable", lambda: ("JPEG", "PNG"))
    heic = b"\x00\x00\x00\x1cftypheic" + bytes(40)
    assert formats.what_it_is(heic) == "it is HEIF, which needs `pip install pillow-heif`"
    assert formats.what_it_is(KINDS["AVIF"]) == "it is AVIF, which needs Pillow 11.3 or later"
    assert needed_for(".heic") == "`pip install pillow-heif`"
    assert needed_for(".jfif") == needed_for(".txt") == ""
    assert read_suffixes() == (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng")


RAMP = np.arange(0, 65536, 512, dtype=np.uint16).reshape(8, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled(kind: str) -> None:
    levels = decode(saved(Image.fromarray(RAMP), kind))[..., 0]
    assert np.abs(levels - RAMP / 257).max() <= 0.5
    assert len(np.unique(levels)) == 128


def tiff(bits: int, pixels: bytes, *, white_is_zero: bool = False, kind: int = 1) -> bytes:
    """Grey of 4 x 4 pixels; `kind` is 1 for whole numbers, 2 for signed ones, 3 for floats."""
    tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8 + 2 + 120 + 4),
            (277, 1), (278, 4), (279, len(pixels)), (339, kind)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels


def test_other_depths_of_grey() -> None:
    sixteen = np.arange(16, dtype="<u2") * 4369
    assert (decode(tiff(16, sixteen.tobytes()))[..., 0].ravel() == np.arange(16) * 17).all()
    inverted = decode(tiff(16, sixteen.tobytes(), white_is_zero=True))[..., 0].ravel()
    assert (inverted == 255 - np.arange(16) * 17).all()
    assert (decode(tiff(12, b"\xff" * 24)) == 255).all()


@pytest.mark.parametrize(
    ("bits", "kind", "dtype", "mode"), [(32, 3, "<f4", "F"), (32, 2, "<i4", "I"), (16, 2, "<i2", "I")]
)
def test_pixels_whose_range_nobody_knows_are_refused(bits: int, kind: int, dtype: str, mode: str) -> None:
    with pytest.raises(DamageError, match=f"its pixels are of mode {mode}, in which white may be any number: save it"):
        decode(tiff(bits, np.arange(16, dtype=dtype).tobytes(), kind=kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_tag_says(kind: str, orientation: int) -> None:
    """The picture as it was seen by the photographer, stored turned, with the tag that turns it back."""
    seen = np.zeros((48, 32, 3), np.uint8)
    seen[:24, :16], seen[:24, 16:], seen[24:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    turned = {1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.transpose(1, 0, 2),
              6: np.rot90(seen, 1), 7: np.rot90(seen, 2).transpose(1, 0, 2), 8: np.rot90(seen, -1)}  # fmt: skip
    stored = turned[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    upright, look = as_upright_jpeg(data)
    assert look.suspect == ""
    pixels = decode(upright).astype(int)
    assert pixels.shape == seen.shape
    assert np.abs(pixels - seen)[8:-8, 4:-4].mean() < 20  # 80 and more for any other turn
    assert Image.open(io.BytesIO(upright)).getexif().get(0x0112, 1) == 1 or upright == data
    if kind == "JPEG" and orientation > 1:  # a release's own photos are never turned
        assert decode(data).shape == stored.shape


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_an_orientation_that_makes_no_sense_turns_nothing(tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    data = saved(exif=exif)
    assert as_upright_jpeg(data)[0] == data
