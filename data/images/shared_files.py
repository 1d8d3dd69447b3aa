"""A folder of mapped files that processes of several runs share, and that never takes more than its bound.

What fits stays: training asks for the same lists again and again, each as often as the others, so that whatever is
evicted for a newcomer would be missed as much as the newcomer is. A file makes way only if the current run has not used
it, which its time of change tells: every use sets it. A list that does not fit beside the others is not written.

A file has a shared lock as long as a process maps it, and is not deleted before: the system would free its bytes only
then, uncounted. While it is filled, it has another name and an exclusive lock; a kill releases both.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


# Part of every name. A power failure can leave a file of zeros unless it was flushed to disk, which takes longer than
# decoding. So files are trusted until the next boot; where boots have no id, files are flushed.
BOOT = _boot()
STARTED = time.time_ns()  # stands for the start of a run that has no name
MADV_POPULATE_WRITE = 23  # Linux 5.14: all pages at once, five times as fast as one fault per page; madvise(2)
# Suffixes; the bound is for the first three, and a file has the third while it is filled.
PIXELS, FEATURES, FILLING = ".pixels", ".features", ".filling"
NOTE, CHECKED, RUN = ".bad", ".checked", ".run"
KEPT = (PIXELS, FEATURES)
NOTES_KEPT = 30 * 24 * 3600.0  # seconds
MIN_FREE_BYTES = 1 << 30  # of the disk; below that nothing is written, whatever the bound
EVICTED_AT_ONCE = 8  # a scan of a folder that is too full frees at least this part of it, and so is rare
SCAN_AGAIN = 60.0  # seconds after a scan that found nothing to evict


class SharedFiles:
    """The folder, as one process sees it. All methods may raise OSError."""

    def __init__(self, folder: Path, max_bytes: int, run: str = "") -> None:
        """Creates nothing yet.

        Args:
            folder: Shared by all processes of the machine.
            max_bytes: All files of pixels and features together, those included that a process fills or maps.
            run: The same for all processes of a run; empty: a run begins with this process.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._run = run
        self._began = 0  # the run, in ns; 0: not known yet
        self._next_scan = -math.inf  # seconds; a new process does not trust the ledger

    def mapped(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """A private mapping of a file, which counts as used from now on; None if it is not there."""
        self._begin()
        try:
            with (self.folder / name).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the mapping keeps it: it duplicates the descriptor
                status = os.fstat(file.fileno())
                if not status.st_nlink or status.st_size != math.prod(shape):  # deleted since it was opened, or damaged
                    return None
                with contextlib.suppress(OSError):  # it is somebody else's
                    os.utime(file.fileno())
                return np.memmap(file, np.uint8, "c", shape=shape)
        except (FileNotFoundError, BlockingIOError):  # or about to be deleted
            return None

    def filled(self, name: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], object]) -> np.ndarray | None:
        """Create a file and map it, unless there is no space for it, or another process is at it.

        Args:
            name: Of the file, which ends in one of `KEPT`.
            shape: Of its array of uint8.
            fill: Writes the array; if it raises, there is no file.
        """
        self._begin()
        file = self._reserved(name, shape)
        if file is None:
            return self.mapped(name, shape)
        temporary = Path(file.name)
        with file:
            try:
                pixels = np.memmap(file, np.uint8, "r+", shape=shape)
                with contextlib.suppress(OSError, AttributeError):  # not Linux, or an older one
                    pixels._mmap.madvise(MADV_POPULATE_WRITE)  # type: ignore[attr-defined]
                fill(pixels)
                if not BOOT:
                    pixels.flush()
                kept = np.memmap(file, np.uint8, "c", shape=shape)
                with self._ledger():  # exchanging locks takes two steps
                    fcntl.flock(file, fcntl.LOCK_SH)
                    temporary.replace(self.folder / name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return kept

    def discard(self, name: str) -> None:
        """Delete a file that has turned out to be damaged, unless a process maps it."""
        with self._ledger():
            _deleted(self.folder / name)

    def clear(self) -> None:
        """Delete every file that no process has mapped or is filling, and all notes."""
        with self._ledger() as ledger:
            for path in sorted(self.folder.iterdir()):
                if path.suffix in (*KEPT, FILLING, NOTE, CHECKED, RUN):
                    _deleted(path)
            ledger.truncate(0)  # whoever needs space counts anew

    def _begin(self) -> None:
        """Before this process uses anything, find out when its run began; if that is now, keep to the bound."""
        if self._began:
            return
        self._began = STARTED
        if not self._run:
            return
        hashed = hashlib.sha256(f"{BOOT} {self._run}".encode()).hexdigest()
        path = self.folder / f"{hashed[:16]}{RUN}"
        with contextlib.suppress(OSError), self._ledger():  # what cannot be written may still be read
            is_first = not path.exists()
            if is_first:
                path.touch()
            self._began = path.stat().st_mtime_ns
            if is_first:
                self._evict(0)

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[BinaryIO]:
        """A file with an upper bound on the bytes in use, locked: nobody else reserves or deletes meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _reserved(self, name: str, shape: tuple[int, ...]) -> BinaryIO | None:
        """A new file of the right size, locked as long as it is open; None if the caller should not write one.

        Space is allocated before anything is written: a mapped file that runs out of disk would kill the process.
        """
        needed = math.prod(shape)
        path = (self.folder / name).with_suffix(FILLING)
        with self._ledger() as ledger:
            if self.mapped(name, shape) is not None or (path.exists() and not _abandoned(path)):
                return None
            path.unlink(missing_ok=True)
            if not self._make_room(needed, ledger):
                return None
            file = path.open("x+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                os.posix_fallocate(file.fileno(), 0, needed)
            except OSError:
                file.close()
                path.unlink()
                raise
            return file

    def _make_room(self, needed: int, ledger: BinaryIO) -> bool:
        """Whether `needed` bytes fit, after evicting what may go.

        Scanning the files of 10,000 clients takes longer than decoding the images of one. So the ledger is trusted
        while there is space, and a scan that found none is repeated only now and then.
        """
        ledger.seek(0)
        noted = ledger.read()
        is_known = noted.isdigit() and self._next_scan > -math.inf
        held = int(noted) if is_known else 0
        if not is_known or (held + needed > self.max_bytes and time.monotonic() >= self._next_scan):
            held = self._evict(needed)
            self._next_scan = time.monotonic() + (SCAN_AGAIN if held + needed > self.max_bytes else 0)
        status = os.statvfs(self.folder)
        fits = held + needed <= self.max_bytes and status.f_bavail * status.f_frsize >= needed + MIN_FREE_BYTES
        ledger.truncate(0)
        ledger.write(b"%d" % (held + needed if fits else held))
        ledger.flush()  # before anything is created: a full disk shows here
        return fits

    def _evict(self, needed: int) -> int:
        """Delete what killed processes left and, for space, files that this run has not used; returns bytes in use."""
        files = {}
        for path in self.folder.iterdir():
            if _abandoned(path) and _deleted(path):
                continue
            if path.suffix in (*KEPT, FILLING):
                with contextlib.suppress(OSError):  # it has just gone, or is a link to nothing
                    files[path] = path.stat()
        held = sum(status.st_size for status in files.values())
        unused = {path for path, status in files.items() if path.suffix in KEPT and status.st_mtime_ns < self._began}
        limit = self.max_bytes
        if held + needed - sum(files[path].st_size for path in unused) <= self.max_bytes < held + needed:
            limit -= max(needed, self.max_bytes // EVICTED_AT_ONCE)
        filled = [path for path in files if path.suffix in KEPT]
        for path in sorted(filled, key=lambda path: (files[path].st_mtime_ns, path.name)):
            if held <= limit or (held <= self.max_bytes and path not in unused):  # above the bound, all may go
                break
            if _deleted(path):
                held -= files[path].st_size
        return held


def _deleted(path: Path) -> bool:
    """Delete a file, unless a process maps it or it belongs to somebody else."""
    try:
        with _alone(path):
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _alone(path: Path) -> BinaryIO:
    """A file that no process has locked; OSError if one has."""
    try:
        file: BinaryIO = path.open("r+b")  # NFS knows exclusive locks of writers alone
    except PermissionError:
        file = path.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _abandoned(path: Path) -> bool:
    """Whether this is a file that no running process is filling, or an old note."""
    with contextlib.suppress(OSError):
        if path.suffix in (NOTE, CHECKED, RUN):
            return time.time() - path.stat().st_mtime > NOTES_KEPT
        if path.suffix == FILLING:
            _alone(path).close()
            return True
    return False
