"""Writes a pack: in order, resumable after a kill at any instant, complete or absent.

Images go to ``FILE.partial``; lengths and checksums of those that are safely on disk to ``FILE.partial.rows``. A
restart keeps what both files agree on and continues from there, so that the result is the same byte for byte.
"""

import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from data.errors import DamageError, DataError
from data.images.decode import decode, resize
from data.images.loading import load_image
from data.layout.finding import SPLITS
from data.layout.groups import names_to_text
from data.layout.key_files import show
from data.outputs import check_output, write_alone, writing
from data.release import Release
from data.stores.pack import BLANK, FORMAT, VERSION, index_checksum, open_pack
from data.tensors import ALIGNMENT, header

CHUNK = 512  # images in flight
READERS = 16  # threads that wait for the disk, which serves many requests in the time of one
SYNC_BYTES = 64 << 20  # written at most between two syncs, which is what a kill may cost ...
SYNC_SECONDS = 2.0  # ... or the work of this time, whichever is less
JPEG = {"quality": 95, "subsampling": 0}  # of images that are downsized
ROW = np.dtype([("length", "<u4"), ("checksum", "<u4")])
IDENTITY = 32  # bytes at the head of the rows file


@dataclass(frozen=True)
class Packing:
    """How an image is stored in the pack.

    Attributes:
        image_size: 0 keeps files as they are. Otherwise the shorter side of a re-encoded JPEG; smaller images stay as
            they are. With `decoded`, both sides of the pixels.
        decoded: Store pixels.
    """

    image_size: int = 0
    decoded: bool = False

    def __post_init__(self) -> None:
        if self.decoded and not self.image_size:
            raise DataError("--decoded needs --image-size, the side of the pixels to keep.")
        if self.image_size and not 16 <= self.image_size <= 1024:
            raise DataError(f"--image-size is {self.image_size}; it must be from 16 to 1024 pixels.")

    def convert(self, release: Release, key: bytes) -> bytes:
        """One image's bytes as they are stored.

        Raises:
            DataError: The image is missing, empty or damaged.
        """
        if self.decoded:
            return load_image(release.store, key, self.image_size).tobytes()
        data = release.store.encoded(key)
        try:
            return self._smaller(data) if self.image_size else data if data else decode(data).tobytes()
        except DamageError as error:
            raise DataError(
                f"image {show(key)} cannot be read from {release.store.place(key)} ({error}); find all such images"
                " with `python -m data check`."
            ) from None

    def _smaller(self, data: bytes) -> bytes:
        image = decode(data)
        height, width = image.shape[:2]
        if min(height, width) <= self.image_size:
            return data
        scale = self.image_size / min(height, width)
        out = io.BytesIO()
        Image.fromarray(resize(image, round(height * scale), round(width * scale))).save(out, "JPEG", **JPEG)
        return out.getvalue()


def write_pack(
    release: Release, out: Path, packing: Packing, threads: int = 1, progress: Callable[[int], None] | None = None
) -> bool:
    """Pack all images of a release.

    Args:
        release: A folder, or a pack of image files.
        out: The file to write; if it exists, it must be this same pack.
        packing: What to store.
        threads: How many images are read and converted at a time, at least `READERS`; does not affect the result.
        progress: Called with the number of images just done, first with those of an earlier start.

    Returns:
        False if the pack already existed.

    Raises:
        DataError: `out` is something else, cannot be written, is being written by another process, or was begun from
            other lists or with other options; or an image is missing or damaged.
    """
    begun, rows = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.partial.rows")
    for path in (out, begun, rows):
        check_output(path)
    identity = identity_of(release, packing)
    with writing(out):
        if out.exists():
            _check_same(out, identity)
            rows.unlink(missing_ok=True)
            return False
        out.parent.mkdir(parents=True, exist_ok=True)
        with rows.open("a+b") as row_file, begun.open("a+b") as image_file:
            write_alone(row_file, out)
            start = len(_header(release, packing, identity, 0, BLANK))
            done = _recover(row_file, image_file, identity, start, out)
            if progress:
                progress(len(done))
            done = _append(row_file, image_file, done, _converted(release, packing, len(done), threads), progress)
            _finish(image_file, release, packing, identity, done)
            begun.replace(out)
            rows.unlink()
    return True


def identity_of(release: Release, packing: Packing) -> bytes:
    """A hash of lists, labels and options, which must be the same to resume a partial pack."""
    seen = hashlib.sha256(repr((VERSION, packing, release.class_names)).encode())
    if names := release.index.group_names:
        seen.update(repr(names).encode())
    for name, array in release.index.to_tensors().items():
        seen.update(name.encode())
        seen.update(np.ascontiguousarray(array).data)
    return seen.digest()


def _check_same(out: Path, identity: bytes) -> None:
    try:
        same = open_pack(out).identity == identity.hex()
    except DataError:
        same = False
    if not same:
        raise not_this_pack(out)


def not_this_pack(out: Path) -> DataError:
    return DataError(f"{out} exists already and is not this pack; give another --out, or delete it.")


def _recover(row_file: BinaryIO, image_file: BinaryIO, identity: bytes, start: int, out: Path) -> np.ndarray:
    """Rows of the images that an earlier start completed; truncates both files right after them."""
    row_file.seek(0)
    known = row_file.read(IDENTITY)
    size = image_file.seek(0, os.SEEK_END)
    if len(known) < IDENTITY or size < start:  # killed before the first image
        row_file.truncate(0)
        row_file.write(identity)
        image_file.truncate(0)
        image_file.write(bytes(start))
        return np.empty(0, ROW)
    if known != identity:
        raise DataError(
            f"{out}.partial was begun from other lists or with other options; delete it and {out}.partial.rows, or"
            " give another --out."
        )
    raw = row_file.read()
    rows = np.frombuffer(raw[: len(raw) // ROW.itemsize * ROW.itemsize], ROW)
    ends = start + np.cumsum(rows["length"], dtype=np.int64)
    rows = rows[: int(np.searchsorted(ends, size, side="right"))]
    row_file.truncate(IDENTITY + rows.nbytes)
    image_file.truncate(start + int(rows["length"].sum(dtype=np.int64)))
    return rows


def _converted(release: Release, packing: Packing, first: int, threads: int) -> Iterator[list[bytes]]:
    """The stored bytes of the images from `first` on, in order, in chunks; the next is prepared meanwhile."""
    keys = release.index.keys
    with ThreadPoolExecutor(max(READERS, threads)) as pool:
        ahead: Iterator[bytes] = iter(())
        for begin in range(first, len(keys), CHUNK):
            ready, ahead = ahead, pool.map(partial(packing.convert, release), keys[begin : begin + CHUNK])
            yield list(ready)
        yield list(ahead)


def _append(
    row_file: BinaryIO,
    image_file: BinaryIO,
    done: np.ndarray,
    converted: Iterator[list[bytes]],
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """Write images, and their rows once they are safely on disk; returns all rows."""
    known: list[np.ndarray] = [done]
    fresh: list[tuple[int, int]] = []
    unsynced, synced = 0, time.monotonic()

    def sync() -> None:
        rows = np.array(fresh, ROW)
        image_file.flush()
        os.fsync(image_file.fileno())
        row_file.write(rows.tobytes())
        row_file.flush()
        known.append(rows)
        fresh.clear()

    for chunk in converted:
        for data in chunk:
            image_file.write(data)
            fresh.append((len(data), zlib.crc32(data)))
            unsynced += len(data)
        if unsynced >= SYNC_BYTES or time.monotonic() - synced > SYNC_SECONDS:
            sync()
            unsynced, synced = 0, time.monotonic()
        if progress:
            progress(len(chunk))
    sync()
    return np.concatenate(known)


def _finish(file: BinaryIO, release: Release, packing: Packing, identity: bytes, rows: np.ndarray) -> None:
    """Write the index after the images and the header before them."""
    size = int(rows["length"].sum(dtype=np.int64))
    padding = -size % ALIGNMENT
    ends = np.cumsum(rows["length"], dtype=np.int64)
    found = {
        **release.index.to_tensors(),
        "offsets": np.concatenate([np.zeros(1, np.int64), ends]),
        "checksums": rows["checksum"],
        "order": np.argsort(release.index.keys, kind="stable").astype(np.int32),
    }
    arrays = {name: np.ascontiguousarray(found[name]) for name in _shapes(release, packing, 0) if name != "images"}
    checksum = index_checksum(_header(release, packing, identity, size + padding, BLANK), arrays)
    file.write(bytes(padding))
    for array in arrays.values():
        file.write(array.tobytes())
    file.flush()
    # A file opened for appending takes every write at its end: the header needs a separate handle.
    with Path(file.name).open("r+b") as head:
        head.write(_header(release, packing, identity, size + padding, checksum))
        head.flush()
        os.fsync(head.fileno())


def _shapes(release: Release, packing: Packing, size: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """All arrays in the file's order: after the images, widest items first, which keeps them aligned."""
    keys, side = release.index.keys, packing.image_size
    count = len(keys)
    shapes = {
        "images": ("u1", (count, side, side, 3) if packing.decoded else (size,)),
        "offsets": ("<i8", (count + 1,)),
        "counts": ("<i8", (len(SPLITS),)),
        "checksums": ("<u4", (count,)),
        "order": ("<i4", (count,)),
        "group": ("<i4", (count,)),
        "noisy": ("<i2", (count,)),
        "clean": ("<i2", (count,)),
        "true": ("<i2", (count,)),
        "keys": ("u1", (count, keys.dtype.itemsize)),
    }
    if packing.decoded:
        del shapes["offsets"]
    if release.index.group is None:  # so that such packs are what they were
        del shapes["group"]
    return {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}


def _header(release: Release, packing: Packing, identity: bytes, size: int, checksum: str) -> bytes:
    """The header of the finished pack, of the same length whatever `size` and `checksum` are."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "checksum": checksum,
        "identity": identity.hex(),
        "classes": json.dumps(release.class_names),
        "image-size": str(packing.image_size),
    }
    if names := release.index.group_names:
        metadata["groups"] = names_to_text(names)
    length = len(json.dumps(metadata)) + 2048  # space for the arrays' entries
    return header(_shapes(release, packing, size), metadata, -(-length // 4096) * 4096)
