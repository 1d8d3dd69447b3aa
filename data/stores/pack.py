"""A pack: one memory-mapped file instead of a million small ones.

It is a safetensors file (readable without this code) with all encoded images end to end, or pixels at one size, and
the index: keys, labels, lists, offsets, a checksum for each image. A checksum over the index and the header is
verified when a pack is opened, an image's own whenever it is read. `data.pack_writer` writes packs.

=============  ==================  =============================================================================
array          dtype, shape        content
=============  ==================  =============================================================================
images         u8 (bytes,)         files end to end, zeros up to a multiple of eight; or (n, size, size, 3) pixels
offsets        i64 (n + 1,)        where each file begins, and the end of the last; absent for pixels
counts         i64 (4,)            images of each of `SPLITS`, in whose order all arrays are
checksums      u32 (n,)            CRC-32 of each image's bytes
order          i32 (n,)            rows in byte order of their keys
group          i32 (n,)            number of an image's group, -1 for none; absent if there are no groups
noisy          i16 (n,)            noisy label, -1 for none; likewise `clean` and `true`, where -2 stands for a noisy
                                   label that is known to be wrong, while nobody knows the true one
keys           u8 (n, m)           padded with zeros
=============  ==================  =============================================================================
"""

import contextlib
import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np

from data.errors import BadImageError, DataError
from data.layout.groups import names_from_text
from data.layout.index import Index
from data.layout.key_files import show
from data.stores.pack_index import problem_of
from data.tensors import map_tensors

FORMAT = "clothing1m-fl pack"
VERSION = "1"
BLANK = "0" * 64  # stands for the checksum while it is computed
RELEASED = re.compile(rb"images/[0-9]/[0-9]{2}/[0-9]+,[0-9]+\.jpg")  # a key of one image in the world
_ARCHIVES = (".tar", ".gz", ".tgz", ".zip", ".npz")


class PackStore:
    """The images of a pack.

    Attributes:
        path: The file.
        class_names: In the order of their labels.
        identity: Hash of the lists and options it was made from, in hex.
        index: Keys and labels.
        decoded_size: Side of the pixels, or 0 when image files are kept.
        state: Changes when the file does, as far as can be told without reading it.
    """

    def __init__(self, path: Path, metadata: dict[str, str], arrays: dict[str, np.ndarray], state: str) -> None:
        """Wrap a mapped file whose checksum is right, and whose index `problem_of` has nothing against."""
        self.path = path
        self.state = state
        self.class_names = tuple(json.loads(metadata["classes"]))
        self.identity = metadata["identity"]
        groups = names_from_text(metadata["groups"]) if "groups" in metadata else ()
        self.index = Index.from_tensors(arrays, metadata["checksum"], groups)
        self._images = arrays["images"]
        self.decoded_size = self._images.shape[1] if self._images.ndim == 4 else 0
        self._offsets = arrays.get("offsets")
        self._checksums = arrays["checksums"]
        self._order = arrays["order"]

    def place(self, key: bytes) -> str:
        return str(self.path)

    def encoded(self, key: bytes) -> bytes:
        """The file as it was packed; refuses a damaged one, and any in a pack of pixels."""
        if self._offsets is None:
            raise DataError(f"{self.path} holds pixels, not image files; it cannot be packed again.")
        row = self._row(key)
        return self._verified(row, self._images[self._offsets[row] : self._offsets[row + 1]]).tobytes()

    def pixels(self, key: bytes) -> np.ndarray:
        """(size, size, 3) uint8 of a pack of pixels; a view of the file.

        Raises:
            DataError: The key is not there, or its pixels are damaged.
        """
        row = self._row(key)
        return self._verified(row, self._images[row])

    @property
    def all_pixels(self) -> np.ndarray:
        """(m, size, size, 3) uint8: the file of a pack of pixels, unchecked and read-only."""
        return self._images

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """(n,) int64: where the images of these keys are in the pack's arrays.

        Raises:
            DataError: A key is not there.
        """
        known = self.index.keys
        places = np.searchsorted(known, keys.astype(known.dtype), sorter=self._order)
        rows = self._order[np.minimum(places, len(known) - 1)].astype(np.int64)
        for key in keys[known[rows] != keys]:
            raise DataError(f"image {show(key)} is not in {self.path}.")
        return rows

    def mark(self, keys: np.ndarray) -> bytes:
        """The checksum of the index covers those of all images."""
        return self.index.stamp.encode()

    def contents(self, keys: np.ndarray) -> bytes:
        """Tells other people's photos of the same names apart; nothing of images that have the release's own names."""
        if not len(keys) or RELEASED.fullmatch(keys[0]):
            return b""
        checksums: bytes = self._checksums[self.rows(keys)].tobytes()
        return checksums

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        """Nothing is missing from a pack that could be opened."""

    def _row(self, key: bytes) -> int:
        keys = self.index.keys
        if len(key) <= keys.dtype.itemsize:
            place = int(np.searchsorted(keys, np.array(key, keys.dtype), sorter=self._order))
            if place < len(keys) and keys[row := int(self._order[place])] == key:
                return row
        raise DataError(f"image {show(key)} is not in {self.path}.")

    def are_sound(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these rows of `all_pixels` are as they were packed."""
        return np.array([zlib.crc32(self._images[row].data) == self._checksums[row] for row in rows], bool)

    def damage(self, row: int) -> BadImageError:
        """What to say of a row that is not."""
        return BadImageError(
            f"{self.path} is damaged: image {show(self.index.keys[row])} has changed since it was packed; copy or"
            " pack it again."
        )

    def _verified(self, row: int, image: np.ndarray) -> np.ndarray:
        if zlib.crc32(image.data) != self._checksums[row]:
            raise self.damage(row)
        return image


def is_pack(path: Path) -> bool:
    """Whether `path` can only be meant as a pack: a file that is not an archive."""
    return path.is_file() and path.suffix not in _ARCHIVES


def open_pack(path: Path) -> PackStore:
    """Map a pack and check everything in it but the images.

    Raises:
        DataError: It is unreadable, not a pack, short, damaged, of another version, or its index makes no sense.
    """
    try:
        state = _state(path)  # before it is mapped: a file that takes its place then has another
        metadata, arrays = map_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError("is not a pack")
    except ValueError as error:
        raise DataError(
            f"{path} is a file that {error}; it must be a folder in Clothing1M's released layout, or a whole file"
            " made by `python -m data pack`."
        ) from None
    if metadata.get("version") != VERSION:
        raise DataError(
            f"{path} is a pack of version {metadata.get('version')}; this code reads version {VERSION}: pack again."
        )
    try:
        if index_checksum(_header(path), arrays) != metadata["checksum"]:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{path} is damaged: its index has changed since it was packed; copy or pack it again."
        ) from None
    if problem := problem_of(metadata, arrays):
        raise DataError(f"{path} is a pack that {problem}; it must be one that `python -m data pack` made.")
    return PackStore(path, metadata, arrays, f"{state} {metadata['checksum']}")


def index_checksum(header: bytes, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256, in hex, of the header with a blank checksum and of all arrays but `images`."""
    checksum = json.loads(header[8:])["__metadata__"]["checksum"]
    seen = hashlib.sha256(header.replace(checksum.encode(), BLANK.encode()))
    for name, array in arrays.items():
        if name != "images":
            seen.update(array.data)
    return seen.hexdigest()


def _state(path: Path) -> str:
    with contextlib.suppress(OSError):  # mapping it will report that
        status = path.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        return f"{path.resolve()} {status.st_dev} {status.st_ino} {status.st_size} {times}"
    return ""


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))
