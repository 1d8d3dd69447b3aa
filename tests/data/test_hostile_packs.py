"""Packs whose checksums fit and whose contents do not: refused in one sentence when opened, or harmless."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from data.images.loading import load_images
from data.pack_writer import Packing, write_pack
from data.release import SPLITS, open_release
from data.stores.pack import BLANK, _header, index_checksum
from data.summary import summarize
from data.tensors import header, map_tensors

Arrays = dict[str, np.ndarray]
Metadata = dict[str, str]


@pytest.fixture(scope="module")
def packs(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Metadata, Arrays]]:
    """What a pack of files and one of pixels hold."""
    folder = tmp_path_factory.mktemp("packs")
    found = {}
    for decoded in (False, True):
        write_pack(open_release(tiny_sample), folder / f"{decoded}", Packing(16 if decoded else 0, decoded))
        metadata, arrays = map_tensors(folder / f"{decoded}")
        found[decoded] = metadata, {name: array.copy() for name, array in arrays.items()}
    return found


def write(path: Path, metadata: Metadata, arrays: Arrays) -> Path:
    """A pack of exactly that, with a checksum that fits."""
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    path.write_bytes(header(shapes, {**metadata, "checksum": BLANK}) + body)
    whole = {name: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for name, array in arrays.items()}
    checksum = index_checksum(_header(path), whole)
    path.write_bytes(header(shapes, {**metadata, "checksum": checksum}) + body)
    return path


def use(path: Path) -> None:
    """All that a run, `show` and `pack` read of a pack."""
    release = open_release(path)
    for name in SPLITS:
        split = release.split(name)
        assert split.labels.min() >= 0
        assert split.labels.max() < len(release.class_names)
        assert split.true.max() < len(release.class_names)
        load_images(release, split.keys, 16)
    summarize(release)


def sentence(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        use(path)
    told = str(refused.value)
    assert told.startswith(f"{path} is a ")
    assert told.endswith(".")
    assert told.isprintable()
    return told


def test_what_was_read_and_written_again_is_the_same(packs: dict[bool, Any], tmp_path: Path) -> None:
    for decoded, (metadata, arrays) in packs.items():
        use(write(tmp_path / f"{decoded}", metadata, arrays))


def changed(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Metadata, Arrays], None]:
    def apply(_: Metadata, arrays: Arrays) -> None:
        new = change(arrays[name])
        if new is not None:
            arrays[name] = new

    return apply


def put(name: str, place: Any, value: Any) -> Callable[[Metadata, Arrays], None]:
    def apply(_: Metadata, arrays: Arrays) -> None:
        arrays[name][place] = value

    return apply


def classes(text: str) -> Callable[[Metadata, Arrays], None]:
    def apply(metadata: Metadata, _: Arrays) -> None:
        metadata["classes"] = text

    return apply


def key(text: bytes) -> Callable[[Metadata, Arrays], None]:
    def apply(_: Metadata, arrays: Arrays) -> None:
        width = arrays["keys"].shape[1]
        arrays["keys"][3] = np.frombuffer(text[:width].ljust(width, b"\0"), np.uint8)

    return apply


def without(name: str) -> Callable[[Metadata, Arrays], None]:
    def apply(_: Metadata, arrays: Arrays) -> None:
        del arrays[name]

    return apply


def twice(_: Metadata, arrays: Arrays) -> None:
    arrays["keys"][1] = arrays["keys"][0]


NAMES = json.dumps([f"class {number}" for number in range(14)])
HOSTILE = {
    "noisy label too large": (put("noisy", 0, 14), "has labels in 'noisy' from -1 to 14, and 14 classes"),
    "clean label below -1": (put("clean", 150, -2), "has labels in 'clean' from -2 to 13, and 14 classes"),
    "true label too large": (put("true", 0, 99), "has labels in 'true' from"),
    "true label below -2": (put("true", 0, -3), "has labels in 'true' from -3 to 13, and 14 classes"),
    "clean label known to be wrong": (
        put("true", -1, -2), "has images in clean_test_key_list.txt whose label is known to be wrong, which only noisy"
    ),
    "noisy train without a label": (put("noisy", 7, -1), "has images without a label in noisy_train_key_list.txt"),
    "clean test without a label": (put("clean", -1, -1), "has images without a label in clean_test_key_list.txt"),
    "offsets descend": (put("offsets", 5, 0), "has images that do not lie end to end"),
    "offsets begin late": (put("offsets", 0, 1), "has images that do not lie end to end"),
    "offsets lead out of the file": (put("offsets", -1, 2**40), "has images that do not lie end to end"),
    "offsets are negative": (put("offsets", 0, -8), "has images that do not lie end to end"),
    "offsets end early": (put("offsets", slice(1, None), 0), "has images that do not lie end to end"),
    "order out of range": (put("order", 0, 192), "has an order with rows from"),
    "order is negative": (put("order", 0, -1), "has an order with rows from -1"),
    "order is another": (changed("order", lambda order: order[::-1].copy()), "has keys that are not in order"),
    "order has a row twice": (put("order", 1, 0), "has keys that are not in order"),
    "a key twice": (twice, "has keys that are not in order, or a key twice in a list"),
    "counts are negative": (put("counts", slice(None), [200, -20, 6, 6]), "and lists of 200, -20, 6, 6"),
    "counts do not add up": (put("counts", 0, 121), "has 192 images, and lists of 121, 20, 12, 40"),
    "counts overflow": (put("counts", slice(None), 2**62), "has 192 images, and lists of"),
    "five lists": (changed("counts", lambda counts: np.append(counts, 0)), "has 192 images, and lists of"),
    "too few checksums": (changed("checksums", lambda array: array[:-1]), "has 'checksums' for 191 of 192 images"),
    "too few offsets": (changed("offsets", lambda array: array[:-1]), "has 'offsets' for 191 of 192 images"),
    "labels of another type": (changed("noisy", lambda array: array.astype("<i4")), "has 'noisy' as int32 of shape"),
    "labels as a table": (changed("noisy", lambda array: array[:, None]), r"has 'noisy' as int16 of shape (192, 1)"),
    "keys in one row": (changed("keys", lambda keys: keys.reshape(-1)), "has 'keys' as uint8 of shape"),
    "keys of no bytes": (changed("keys", lambda keys: keys[:, :0]), "has keys of 0 bytes"),
    "keys of few bytes": (changed("keys", lambda keys: keys[:, :7]), "has keys of 7 bytes, too short for images/"),
    "no offsets": (without("offsets"), "has the arrays"),
    "no labels": (without("clean"), "has the arrays"),
    "key climbs": (key(b"images/../../etc/passwd"), "has keys that are not images/"),
    "key with two slashes": (key(b"images//etc/passwd"), "has keys that are not images/"),
    "key is empty": (key(b"images/"), "has keys that are not images/"),
    "key of another form": (key(b"/etc/passwd"), "has keys that are not images/"),
    "key with a blank": (key(b"images/1/11/1 1.jpg"), "has keys that are not images/"),
    "key with a zero": (key(b"images/1/11/1\x001.jpg"), "has keys that are not images/"),
    "key with a line end": (key(b"images/1/11/1\n1.jpg"), "has keys that are not images/"),
    "classes are no JSON": (classes("{"), "has no list of classes"),
    "classes are no list": (classes('{"a": 1}'), "has no list of classes"),
    "classes are numbers": (classes("[1, 2]"), "has no list of classes"),
    "classes are deep": (classes("[" * 100_000), "has no list of classes"),
    "no classes": (classes("[]"), "has no list of classes"),
    "one class": (classes('["one"]'), "has labels in 'noisy' from"),
    "a class twice": (classes(NAMES.replace("class 3", "class 2")), "has a wrong name of a class, number 4: 'class 2'"),
    "a class with an escape code": (
        classes(NAMES.replace("class 3", r"\u001b[2J")), r"has a wrong name of a class, number 4: '\x1b[2J' must be"
    ),
    "a class without a name": (classes(NAMES.replace("class 3", "")), "has a wrong name of a class, number 4: ''"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_contents_that_make_no_sense_are_refused_when_a_pack_is_opened(
    packs: dict[bool, Any], tmp_path: Path, kind: str
) -> None:
    change, expected = HOSTILE[kind]
    metadata, arrays = packs[False]
    metadata, arrays = dict(metadata), {name: array.copy() for name, array in arrays.items()}
    change(metadata, arrays)
    path = write(tmp_path / "pack", metadata, arrays)
    with pytest.raises(DataError) as refused:
        open_release(path)
    assert expected in str(refused.value)
    assert str(refused.value).endswith("; it must be one that `python -m data pack` made.")


ODD = (-(2**40), -2, -1, 0, 1, 13, 14, 15, 191, 192, 255, 32_767, 2**31 - 1, 2**62)


def mutate(metadata: Metadata, arrays: Arrays, rng: random.Random) -> None:
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    action = rng.random()
    if action < 0.1:
        texts = [
            "[]",
            "[" * 3000,
            '"a"',
            NAMES[:-2],
            NAMES.replace("class 7", "\\u202e\\u001b[2J"),
            "null",
            "[[]]",
            "NaN",
        ]
        metadata[rng.choice(["classes", "identity", "image-size"])] = rng.choice(texts)
    elif action < 0.15:
        del arrays[name]
    elif action < 0.2:
        arrays[name] = array.astype(rng.choice(["u1", "<i2", "<i4", "<u4", "<i8"]))
    elif action < 0.3:
        shapes = [array[:-1], array[None], array.reshape(-1), array[:0], np.concatenate([array, array[:1]])]
        arrays[name] = np.ascontiguousarray(rng.choice(shapes))
    elif action < 0.4 and array.size:
        other = rng.randrange(len(array))
        array[[0, other]] = array[[other, 0]]
    elif array.size:
        limits = np.iinfo(array.dtype)
        for _ in range(rng.choice([1, 1, 5])):
            place = tuple(rng.randrange(side) for side in array.shape)
            array[place] = min(max(rng.choice(ODD), limits.min), limits.max)


@pytest.mark.parametrize("seed", range(150))
def test_any_hostile_pack_is_refused_in_a_sentence_or_harmless(
    packs: dict[bool, Any], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    metadata, arrays = packs[rng.random() < 0.3]
    metadata, arrays = dict(metadata), {name: array.copy() for name, array in arrays.items()}
    for _ in range(rng.choice([1, 1, 2])):
        if arrays:
            mutate(metadata, arrays, rng)
    path = write(tmp_path / "pack", metadata, arrays)
    try:
        use(path)
    except DataError as error:
        told = str(error)
        assert str(path) in told
        assert told.endswith(".")
        assert told.isprintable()


@pytest.mark.parametrize(
    "spans",
    [
        {"a": ([4], [0, 4]), "b": ([4], [2, 6])}, {"a": ([4], [4, 8])}, {"a": ([-4], [0, 4])}, {"a": ([2.0], [0, 2])},
        {"a": ([2**40, 2**40, 2**48], [0, 0])}, {"a": ([2**70, 0], [0, 0])}, {"a": ([1] * 90, [0, 1])},
        {"a": (["4"], [0, 4])}, {"a": ([True], [0, 1])}, {"a": ([4], [0, 4, 8])}, {"a": (4, [0, 4])},
    ],
)  # fmt: skip
def test_arrays_that_cannot_lie_in_a_file_are_refused(tmp_path: Path, spans: dict[str, Any]) -> None:
    entries = {name: {"dtype": "U8", "shape": shape, "data_offsets": at} for name, (shape, at) in spans.items()}
    text = json.dumps(entries).encode()
    (tmp_path / "pack").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    assert "is not a safetensors file, or its header is damaged" in sentence(tmp_path / "pack")
