"""Decoded images on disk, shared by all processes of a machine and by later runs.

One file holds the pixels of one list of images at one size and is mapped into memory: the operating system keeps in RAM
what is used, gives it back when memory is short, and all Ray actors share one copy. In deployment, where each message
starts a new process, the next one finds them there. The least recently used files are evicted before the bound is
exceeded.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.errors import BadImageError
from data.images.decode import DECODER
from data.images.loading import load_images, unreadable_images
from data.images.pixels import Pixels, StoredPixels
from data.release import Release
from data.stores.pack import PackStore
from data.user_cache import below_home, cache_folder
from data.whole_files import replace_file

GIB = 1 << 30


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


# Part of every name. A power failure can leave a file of zeros unless it was flushed to disk, which takes longer than
# decoding. So files are trusted until the next boot; where boots have no id, files are flushed.
BOOT = _boot()
MADV_POPULATE_WRITE = 23  # Linux 5.14: all pages at once, five times as fast as one fault per page; madvise(2)
NOTE = ".bad"  # suffix of the notes on images that cannot be read
NOTES_KEPT = 30 * 24 * 3600.0  # seconds
MIN_FREE_BYTES = 1 << 30  # of the disk; below that nothing is cached, whatever the bound


class DecodedCache:
    """A folder of decoded images that never holds more than `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int, warn: Callable[[str], None] = lambda sentence: None) -> None:
        """Creates nothing until the first image is cached, or noted as bad.

        Args:
            folder: Shared by all processes of the machine.
            max_bytes: 0: nothing is cached.
            warn: Called once, with a sentence, if the folder cannot be written: images are then decoded each time.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._warn: Callable[[str], None] | None = warn
        self._names: dict[tuple[str, bytes, int], str] = {}
        self._has_scanned = False  # the folder's files

    @staticmethod
    def place(folder: str) -> Path:
        """`folder`, or the one in the user's cache when it is empty."""
        return below_home(folder) if folder else cache_folder("decoded")

    def images(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> np.ndarray:
        """Like `data.images.loading.load_images`, but each list is decoded at most once while the cache can hold it.

        Image files must not change while this process runs: their sizes and times are only checked when it first asks
        for a list.

        Returns:
            (n, size, size, 3) uint8; a private mapping of a file, or an array if it could not be cached.

        Raises:
            DataError: What `load_images` refuses.
        """
        shape = (len(keys), size, size, 3)
        needed = len(keys) * size * size * 3
        # Caching a copy of decoded pixels would gain nothing.
        already_decoded = isinstance(release.store, PackStore) and release.store.decoded_size
        if already_decoded or not 0 < needed <= self.max_bytes:
            return load_images(release, keys, size, threads)
        path = self.folder / self._name(release, keys, size)
        found = _open(path, shape)
        if found is not None:
            return found
        try:
            kept = self._fill(path, release, keys, shape, threads)
        except OSError as error:  # no permission, a full disk, too many open files
            kept = None
            if self._warn:
                reason = error.strerror or error
                self._warn(f"{self.folder} cannot be written ({reason}); images are decoded anew in each visit.")
            self._warn = None
        return load_images(release, keys, size, threads) if kept is None else kept

    def pixels(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> Pixels:
        """The same images; those of a pack of pixels stay in its file, which is mapped."""
        return StoredPixels(self.images(release, keys, size, threads))

    def bad_images(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> dict[int, str]:
        """Decode everything once, and note in the folder which images cannot be read.

        Returns:
            Rows of `keys`, and for each the sentence that `images` would refuse it with.

        Raises:
            DataError: What `images` refuses for another reason.
        """
        note = (self.folder / self._name(release, keys, size)).with_suffix(NOTE)
        bad = _noted(note, len(keys))
        if bad is None:
            try:
                self.images(release, keys, size, threads)
                bad = {}
            except BadImageError:
                bad = unreadable_images(release, keys, threads)
            with contextlib.suppress(OSError):  # then the next visit decodes again
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(note, json.dumps(bad).encode())
        return bad

    def _fill(
        self, path: Path, release: Release, keys: np.ndarray, shape: tuple[int, ...], threads: int
    ) -> np.ndarray | None:
        """Decode into a new file, unless there is no space for it."""
        file = self._reserve(int(np.prod(shape, dtype=np.int64)))
        if file is None:
            return None
        with file:
            temporary = Path(file.name)
            try:
                mapped = np.memmap(temporary, np.uint8, "r+", shape=shape)
                with contextlib.suppress(OSError, AttributeError):  # not Linux, or an older one
                    mapped._mmap.madvise(MADV_POPULATE_WRITE)  # type: ignore[attr-defined]
                load_images(release, keys, shape[1], threads, out=mapped)
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
        """A new file of `needed` bytes, locked as long as it is open, or None if it does not fit.

        Space is allocated before anything is written: a mapped file that runs out of disk would kill the process.
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
        """Whether `needed` bytes fit, after evicting what must go.

        The ledger holds an upper bound on the bytes in use: scanning the files of 10,000 clients takes longer than
        decoding the images of one.
        """
        ledger.seek(0)
        noted = ledger.read()
        held = int(noted) if self._has_scanned and noted.isdigit() else self.max_bytes
        if held + needed > self.max_bytes:
            held = self._evict(needed)
            self._has_scanned = True
        status = os.statvfs(self.folder)
        fits = held + needed <= self.max_bytes and status.f_bavail * status.f_frsize >= needed + MIN_FREE_BYTES
        ledger.truncate(0)
        ledger.write(b"%d" % (held + needed if fits else held))
        return fits

    def _evict(self, needed: int) -> int:
        """Delete what killed processes left, and the least recently used files; returns the bytes still in use."""
        files = {}
        for path in self.folder.iterdir():
            if _abandoned(path):
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
    """Map a cached file and mark it as just used; None if it is not there."""
    try:
        if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
            return None
        mapped = np.memmap(path, np.uint8, "c", shape=shape)
        os.utime(path)
    except (OSError, ValueError):
        return None
    return mapped


def _noted(path: Path, count: int) -> dict[int, str] | None:
    """What a note says of so many images; None if there is none, or a crash left it damaged."""
    try:
        bad = {int(row): str(said) for row, said in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return None
    return bad if all(0 <= row < count for row in bad) else None


def _abandoned(path: Path) -> bool:
    """Whether this is a file that no running process is filling, or an old note."""
    with contextlib.suppress(OSError):
        if path.suffix == NOTE:
            return time.time() - path.stat().st_mtime > NOTES_KEPT
        if path.suffix == ".filling":
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
