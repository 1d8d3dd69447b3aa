"""Decoded images on disk, shared by every process of a machine, and by its next run.

One file holds the pixels of one list of images at one size and is mapped into memory: the operating system keeps in RAM
what is used, gives it back when memory is short, and all Ray actors share one copy. In deployment, where each message
is a new process, the next message finds them. Least recently used files make room; more than the bound is never held.
"""

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.images.decode import DECODER
from data.images.loading import load_images
from data.release import Release
from data.stores.pack import PackStore
from data.user_cache import cache_folder

GIB = 1 << 30


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


# Part of every name. A power failure can leave a file of zeros behind unless it waited for the disk, which takes longer
# than decoding; so files are trusted until the next boot, and where nobody knows about boots they do wait.
BOOT = _boot()
MADV_POPULATE_WRITE = 23  # Linux 5.14: all pages at once, five times as fast as one fault for each; madvise(2)
MIN_FREE_BYTES = 1 << 30  # of the disk; below that nothing is cached, whatever the bound


class DecodedCache:
    """A folder of decoded images that never holds more than `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Nothing is created before the first image is kept; `max_bytes` of 0 keeps none."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._names: dict[tuple[str, bytes, int], str] = {}
        self._has_looked = False  # at what is in the folder

    @staticmethod
    def place(folder: str) -> Path:
        """`folder`, or the one in the user's cache when it is empty."""
        return Path(folder).expanduser() if folder else cache_folder("decoded")

    def images(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> np.ndarray:
        """Like `data.images.loading.load_images`, but decoded at most once while there is room.

        Image files must not change while this process lives: they are only looked at (sizes and times) when it asks for
        a list for the first time.

        Returns:
            (n, size, size, 3) uint8; a private mapping of a file, or an array when nothing could be kept.

        Raises:
            DataError: What `load_images` refuses.
        """
        shape = (len(keys), size, size, 3)
        needed = len(keys) * size * size * 3
        as_it_is = isinstance(release.store, PackStore) and release.store.decoded_size  # a copy would win nothing
        if as_it_is or not 0 < needed <= self.max_bytes:
            return load_images(release, keys, size, threads)
        path = self.folder / self._name(release, keys, size)
        found = _open(path, shape)
        if found is not None:
            return found
        try:
            file = self._reserve(needed)
        except OSError:  # no permission, or a disk that is full
            file = None
        if file is None:
            return load_images(release, keys, size, threads)
        with file:
            temporary = Path(file.name)
            try:
                mapped = np.memmap(temporary, np.uint8, "r+", shape=shape)
                with contextlib.suppress(OSError, AttributeError):  # not Linux, or an older one
                    mapped._mmap.madvise(MADV_POPULATE_WRITE)  # type: ignore[attr-defined]
                load_images(release, keys, size, threads, out=mapped)
                if not BOOT:
                    mapped.flush()
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        kept = _open(path, shape)
        return mapped if kept is None else kept

    def _name(self, release: Release, keys: np.ndarray, size: int) -> str:
        """A name that changes with the images, their order, their files, the size and the decoder."""
        listed = hashlib.sha256(np.ascontiguousarray(keys).tobytes()).digest()
        known = (str(release.root), listed, size)
        if known not in self._names:
            about = f"{DECODER} {size} {keys.dtype} {BOOT}".encode()
            seen = hashlib.sha256(about + listed + release.store.mark(keys))
            self._names[known] = f"{seen.hexdigest()[:32]}.pixels"
        return self._names[known]

    def _reserve(self, needed: int) -> BinaryIO | None:
        """A new file of `needed` bytes, locked as long as it is open, or None if there is no room for it.

        Space is set aside before anything is written: a mapped file that runs out of disk would kill the process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._make_room(needed, lock):
                return None
            file = (self.folder / f"{os.getpid()}-{os.urandom(4).hex()}.filling").open("xb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                os.posix_fallocate(file.fileno(), 0, needed)
            except OSError:
                file.close()
                Path(file.name).unlink()
                raise
            return file

    def _make_room(self, needed: int, ledger: BinaryIO) -> bool:
        """Whether `needed` bytes fit, after deleting what must go.

        The ledger says how many bytes there are at most: looking at the files of 10,000 clients takes longer than
        decoding the images of one.
        """
        ledger.seek(0)
        noted = ledger.read()
        held = int(noted) if self._has_looked and noted.isdigit() else self.max_bytes
        if held + needed > self.max_bytes:
            held = self._delete_until_there_is_room(needed)
            self._has_looked = True
        status = os.statvfs(self.folder)
        fits = held + needed <= self.max_bytes and status.f_bavail * status.f_frsize >= needed + MIN_FREE_BYTES
        ledger.truncate(0)
        ledger.write(b"%d" % (held + needed if fits else held))
        return fits

    def _delete_until_there_is_room(self, needed: int) -> int:
        """Delete what killed processes left behind, and the least recently used files; how many bytes are left."""
        files = {}
        for path in self.folder.iterdir():
            if path.suffix == ".filling" and _abandoned(path):
                path.unlink(missing_ok=True)
            elif path.suffix in (".pixels", ".filling"):
                with contextlib.suppress(FileNotFoundError):
                    files[path] = path.stat()
        held = sum(status.st_size for status in files.values())
        oldest_first = sorted(files, key=lambda path: (files[path].st_mtime_ns, path.name))
        for path in oldest_first:
            if held + needed <= self.max_bytes:
                break
            if path.suffix == ".pixels":
                path.unlink(missing_ok=True)
                held -= files[path].st_size
        return held


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map a kept file and mark it as used now; None if it is not there."""
    try:
        if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
            return None
        mapped = np.memmap(path, np.uint8, "c", shape=shape)
        os.utime(path)
    except (OSError, ValueError):
        return None
    return mapped


def _abandoned(path: Path) -> bool:
    """Whether no living process fills this file."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
