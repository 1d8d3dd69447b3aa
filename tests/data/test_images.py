import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from data.errors import DataError
from data.images.loading import load_images
from data.release import Release, open_release

Save = Callable[..., bytes]
Write = Callable[..., Path]


@pytest.fixture
def release(write_release: Write) -> Release:
    return open_release(write_release())


@pytest.fixture
def save(release: Release) -> Save:
    """Save a picture under an invented key, whatever the format; the name ends in .jpg as in the release."""

    def save(image: Image.Image, number: int = 0, format_: str = "JPEG", **options: object) -> bytes:
        key = f"images/8/08/{number},3808.jpg".encode()
        path = Path(release.store.place(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format_, **options)
        return key

    return save


def noise(mode: str, width: int = 37, height: int = 23, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def within_a_level(images: np.ndarray, expected: np.ndarray | Image.Image) -> bool:
    """The stated tolerance against Pillow and torchvision: one level in 255."""
    return int(np.abs(images.astype(int) - np.asarray(expected)).max()) <= 1


def load(release: Release, *keys: bytes, size: int = 16, threads: int = 1) -> np.ndarray:
    return load_images(release, np.array(keys), size, threads)


@pytest.mark.parametrize(("mode", "format_"), [
    ("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG"),
    ("1", "PNG"), ("RGB", "WEBP"),
])  # fmt: skip
def test_every_mode_becomes_rgb(release: Release, save: Save, mode: str, format_: str) -> None:
    key = save(noise(mode), format_=format_)
    with Image.open(Path(release.store.place(key))) as image:
        if image.mode not in ("P", "RGB"):
            assert image.mode == mode
        expected = image.convert("RGB").resize((16, 16), resample=2)  # 2: bilinear
    images = load(release, key)
    assert images.shape == (1, 16, 16, 3)
    assert images.dtype == np.uint8
    assert within_a_level(images[0], expected)


def test_grey_has_three_equal_channels(release: Release, save: Save) -> None:
    grey = load(release, save(noise("L")))[0]
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    assert grey.std() > 1


def test_a_palette_with_alpha_keeps_its_colours_and_does_not_warn(release: Release, save: Save) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 210, 40, 90])
    key = save(image, format_="PNG", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (load(release, key)[0] == (210, 40, 90)).all()


def test_orientation_tags_are_not_applied(release: Release, save: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = save(noise("RGB"), 1, exif=exif), save(noise("RGB"), 2)
    images = load(release, turned, plain)
    assert np.array_equal(images[0], images[1])


@pytest.mark.parametrize("shape", [(16, 16), (17, 16), (8, 5), (300, 200), (1, 1)])
def test_both_sides_become_the_size(release: Release, save: Save, shape: tuple[int, int]) -> None:
    key = save(noise("RGB", *shape), format_="PNG")
    expected = noise("RGB", *shape)
    if shape != (16, 16):
        expected = expected.resize((16, 16), resample=2)
    assert within_a_level(load(release, key)[0], expected)


def test_the_same_as_torchvision(release: Release, save: Save) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    key = save(noise("RGB", 301, 222))
    with Image.open(Path(release.store.place(key))) as image:
        expected = transforms.Resize((64, 64))(image.convert("RGB"))
    assert within_a_level(load(release, key, size=64)[0], expected)


def test_order_and_threads(release: Release, save: Save) -> None:
    keys = [save(noise("RGB", seed=number), number) for number in range(150)]
    one = load(release, *keys, threads=1)
    assert len({image.tobytes() for image in one}) == 150
    for threads in (2, 5):
        assert np.array_equal(load(release, *keys, threads=threads), one)
    assert np.array_equal(load(release, *keys[::-1]), one[::-1])


def test_no_keys(release: Release) -> None:
    assert load_images(release, np.empty(0, "S30"), 16, threads=2).shape == (0, 16, 16, 3)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:30], "cannot be read"),
        (lambda data: b"<html>404</html>", "it begins with '<html>404</html>', like none of JPEG"),
        (lambda data: b"\x00\x00\x01\xba" * 9, "it begins with the bytes 00 00 01 ba 00 00 01 ba, like none of JPEG"),
        (lambda data: b"\xff\xd8\xff" + bytes(100), "cannot be read"),
    ],
)
def test_damaged_images_are_named(
    release: Release, save: Save, damage: Callable[[bytes], bytes], reason: str, threads: int
) -> None:
    keys = [save(noise("RGB"), number) for number in range(3)]
    path = Path(release.store.place(keys[1]))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load(release, *keys, threads=threads)
    sentence = str(caught.value)
    assert keys[1].decode() in sentence
    assert str(path) in sentence
    assert reason in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_truncated_png(release: Release, save: Save) -> None:
    key = save(noise("P", 200, 200), format_="PNG")
    path = Path(release.store.place(key))
    for length in (20, 40, 60, 900, 5000):
        whole = path.read_bytes()
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="8/08/0,3808"):
            load(release, key)
        path.write_bytes(whole)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_bad_image_in_order_is_named(release: Release, save: Save, threads: int) -> None:
    keys = [save(noise("RGB", 5, 5), number) for number in range(200)]
    for number in (70, 71, 190):
        Path(release.store.place(keys[number])).unlink()
    with pytest.raises(DataError, match=r"image images/8/08/70,3808\.jpg is missing"):
        load(release, *keys, threads=threads)


def test_a_folder_in_place_of_an_image(release: Release) -> None:
    Path(release.store.place(b"images/8/08/1,3808.jpg")).mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        load(release, b"images/8/08/1,3808.jpg")


@pytest.mark.parametrize("side", [7_100, 9_500, 14_000])  # above our limit; above Pillow's warning; above its error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(release: Release, save: Save, side: int) -> None:
    key = save(Image.new("1", (side, side)), format_="PNG")
    with pytest.raises(DataError, match=r"8/08/0,3808.*pixels"):
        load(release, key)


def test_pillow_is_left_as_it_was(release: Release, save: Save) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    load(release, save(noise("RGB")), threads=2)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
