"""Reads, hashes and decodes every image; can be stopped and resumed."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.check.findings import SUSPECT, Findings
from data.errors import DamageError, DataError
from data.images.decode import Look, look_at
from data.layout.finding import SPLITS
from data.layout.key_files import show
from data.stores.folder import Store
from data.stores.pack import PackStore

CHUNK = 512  # images in flight, and between two writes of the journal
READERS = 16  # threads that wait for the disk, which serves many requests in the time of one
GOOD = np.dtype([("row", "<u4"), ("mode", "S8"), ("digest", "u1", 16)])
IDENTITY = 32  # bytes at the head of the journal
JOURNAL = b"2"  # changes with what is found in an image


def check_images(
    store: Store,
    lists: Mapping[str, np.ndarray],
    present: np.ndarray,
    journal: Path,
    threads: int,
    findings: Findings,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Decode everything.

    Args:
        store: Where the images are.
        lists: Keys of each list.
        present: (n,) keys to look at.
        journal: Records images without a finding, so that a stopped check can resume; others are read again.
        threads: How many images are decoded at a time.
        findings: Gains zero-byte, truncated, unreadable, suspect and non-RGB images, odd metadata, and same bytes
            under two keys.
        progress: Called with the number of images just done.

    Raises:
        OSError: The journal cannot be written.
    """
    good = np.zeros(len(present), GOOD)
    done = np.zeros(len(present), bool)
    identity = hashlib.sha256(JOURNAL + np.ascontiguousarray(present).tobytes()).digest()
    with journal.open("a+b") as file:
        for record in _read_journal(file, identity, len(present)):
            good[record["row"]] = record
            done[record["row"]] = True
        if progress:
            progress(int(done.sum()))
        for rows, outcomes in _look(store, present, np.flatnonzero(~done), threads):
            for row, (look, digest, kind, detail) in zip(rows, outcomes, strict=True):
                key = present[row]
                if kind:
                    findings.add(kind, show(key), detail)
                    continue
                good[row] = (row, look.mode, np.frombuffer(digest, np.uint8))
                done[row] = True
                for kind, said in ((SUSPECT, look.suspect), ("odd metadata", look.odd)):
                    if said:
                        findings.add(kind, show(key), f"{said}, at {store.place(key)}")
                if not (look.suspect or look.odd):
                    file.write(good[row].tobytes())
            file.flush()
            if progress:
                progress(len(rows))
    for row in np.flatnonzero(done & (good["mode"] != b"RGB")):
        findings.add("non-RGB image", show(present[row]), f"is {good['mode'][row].decode()}; it is converted")
    _same_bytes(present[done], good["digest"][done], lists, findings)
    journal.unlink()


def _read_journal(file: io.BufferedRandom, identity: bytes, count: int) -> np.ndarray:
    """Records of an earlier start on the same keys; truncates the file right after them."""
    file.seek(0)
    if file.read(IDENTITY) != identity:
        file.truncate(0)
        file.write(identity)
        return np.empty(0, GOOD)
    raw = file.read()
    records = np.frombuffer(raw[: len(raw) // GOOD.itemsize * GOOD.itemsize], GOOD)
    file.truncate(IDENTITY + records.nbytes)
    return records[records["row"] < count]


Outcome = tuple[Look, bytes, str, str]  # look and digest of a good image, kind and detail of a bad one
SOUND = Look("RGB", suspect="", odd="")


def _look(store: Store, keys: np.ndarray, rows: np.ndarray, threads: int) -> Iterator[tuple[np.ndarray, list[Outcome]]]:
    decoding = threading.BoundedSemaphore(max(1, threads))
    with ThreadPoolExecutor(max(READERS, threads)) as pool:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            yield chunk, list(pool.map(partial(_look_at, store, decoding), keys[chunk]))


def _look_at(store: Store, decoding: AbstractContextManager[Any], key: bytes) -> Outcome:
    try:
        if isinstance(store, PackStore) and store.decoded_size:
            return SOUND, _digest(store.pixels(key).tobytes()), "", ""
        data = store.encoded(key)
    except DataError as error:
        return SOUND, b"", "unreadable image", str(error)
    if not data:
        return SOUND, b"", "zero-byte image", f"at {store.place(key)}"
    try:
        with decoding:
            return look_at(data), _digest(data), "", ""
    except DamageError as error:
        kind = "truncated image" if "truncated" in str(error) else "unreadable image"
        return SOUND, b"", kind, f"{error}, at {store.place(key)}"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def _same_bytes(keys: np.ndarray, digests: np.ndarray, lists: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Images with the same content under different keys, above all on both sides of a train and test split."""
    halves = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)
    order = np.lexsort((np.arange(len(keys)), halves[:, 1], halves[:, 0]))
    same = (halves[order][1:] == halves[order][:-1]).all(axis=1)
    holder = np.zeros(len(keys), np.int8)
    for number, split in enumerate(SPLITS):
        holder[np.isin(keys, lists[split])] = number
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]])) if len(same) else np.empty(0, np.int64)
    for start in starts:
        stop = start + 1
        while stop < len(keys) and same[stop - 1]:
            stop += 1
        group = sorted(order[start:stop], key=lambda row: (-holder[row], row))  # those of clean test first
        first, leaked = group[0], SPLITS[holder[group[0]]] == "clean_test"
        for row in group[1:]:
            split = SPLITS[holder[row]]
            kind = "same bytes as a test image" if leaked and split != "clean_test" else "same bytes"
            findings.add(kind, show(keys[row]), f"in {split}, as {show(keys[first])} in {SPLITS[holder[first]]}")
