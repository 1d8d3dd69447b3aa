"""Writes a dataset as a release: into a folder in the released layout, or into a pack."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from data.errors import BadImageError, DamageError, DataError
from data.images.decode import as_upright_jpeg, look_at
from data.layout.finding import SPLITS
from data.layout.groups import problem_of_group_names
from data.layout.index import Index
from data.layout.key_files import problem_of_names
from data.layout.writer import Labelled, write_annotations
from data.outputs import check_output
from data.pack_writer import Packing, identity_of, not_this_pack, write_pack
from data.progress_bar import cpus
from data.release import Release
from data.sources.looked import Sound, remembered
from data.sources.source import Listed, Source, table_of_origins
from data.stores.pack import open_pack
from data.text import printable
from data.whole_folders import resumable

PACK = ".pack"  # what the name of a pack ends in
LEFT_OUT = "left-out.txt"  # in the release or, after its name, beside the pack; if anything was left out
ORIGINALS = "originals.tsv"  # likewise: key, tab, where the image was in the dataset
BROKEN = "missing or broken"  # as one word for why, where `LEFT_OUT` has a sentence
CHUNK = 512  # images in flight
READERS = 16  # threads that wait for the disk
FEW_BROKEN, SHARE_BROKEN = 10, 0.01  # more than both are no accident but half a download
Bar = Callable[[str, int], Any]  # what is counted and how many: a context that yields what is told of each done


@dataclass(frozen=True)
class Written:
    """What an import did.

    Attributes:
        counts: Number of images of each list that was written.
        left_out: Every file that was not imported, and why in a word; `LEFT_OUT` has the same.
        suspect: Images whose pixels may be damaged, and why.
        fresh: Whether anything was written; a pack may have been there already.
    """

    counts: dict[str, int]
    left_out: list[tuple[Path, str]]
    suspect: dict[Path, str]
    fresh: bool = True


def write_source(source: Source, out: Path, bar: Bar | None = None, threads: int = 0) -> Written:
    """Import a dataset; after a stop, the same call goes on where it was.

    Args:
        source: The dataset.
        out: A file whose name ends in `PACK`, or a folder that does not exist yet, or is empty.
        bar: Shows how far it is.
        threads: How many images are looked at at a time; 0: one per processor. The result does not depend on it.

    Raises:
        DataError: Images are missing or broken: any of people's own, too many of a published dataset. Or `out` is not
            what it must be, or cannot be written.
    """
    if problem := problem_of_names(source.class_names):
        raise DataError(f"{source.root} has a wrong name of a class, number {problem}")
    if problem := problem_of_group_names(source.group_names):
        raise DataError(f"{source.root} has a wrong name of a group, number {problem}")
    source = replace(source, splits={name: _sorted(source.splits[name]) for name in SPLITS if name in source.splits})
    if out.resolve().is_relative_to(source.root.resolve()):
        raise DataError(f"--out is {out}, which is inside {source.root}; it must be elsewhere.")
    work = _Work(source, out, bar or (lambda *_: nullcontext(lambda _: None)), threads or cpus())
    return work.to_pack() if out.suffix == PACK else work.to_folder()


def release_of(source: Source) -> Release:
    """A dataset as a release whose images still are where they were."""
    store = SourceStore(source)
    return Release(source.root, source.class_names, source.root, store, index_of(source))


class SourceStore:
    """The images of a dataset, by their keys. It fulfils `data.stores.folder.Store`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._origins = {
            key.encode(): origin
            for listed in source.splits.values()
            for key, origin in zip(listed.keys, listed.origins, strict=True)
        }

    def encoded(self, key: bytes) -> bytes:
        origin = self._origins[bytes(key)]
        try:
            data = self._source.encoded(origin)
            return as_upright_jpeg(data)[0] if self._source.own else data
        except DamageError as error:
            raise BadImageError(_unreadable(self._source.place(origin), error)) from None
        except OSError as error:
            raise BadImageError(f"{self._source.place(origin)} cannot be read: {error.strerror}.") from None

    def place(self, key: bytes) -> str:
        return str(self._source.place(self._origins[bytes(key)]))

    def mark(self, keys: np.ndarray) -> bytes:
        """Nothing keeps what is made of these images."""
        return self._source.identity.encode()

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        """All of them are read anyway."""


def index_of(source: Source) -> Index:
    """Keys and labels of a dataset whose lists are in the order of their keys, as in the release that it becomes."""
    lists = {name: source.splits.get(name, _NO_IMAGES) for name in SPLITS}
    keys = np.array([key.encode() for listed in lists.values() for key in listed.keys] or np.empty(0, "S1"))
    true, noisy = (np.concatenate([getattr(one, name) for one in lists.values()]) for name in ("true", "noisy"))
    is_clean = np.repeat([name != "noisy_train" for name in SPLITS], list(map(len, lists.values())))
    clean = np.where(is_clean, true, -1).astype(np.int16)
    counts = tuple(map(len, lists.values()))
    labels = keys, noisy.astype(np.int16), clean, true.astype(np.int16)
    return Index(*labels, counts, source.identity, _groups(source, list(lists.values())), source.group_names)


def _groups(source: Source, lists: list[Listed]) -> np.ndarray | None:
    """(n,) int32 group of each image of all lists, -1 where it is unknown; None if the dataset has no groups."""
    if not source.group_names:
        return None
    each = [np.full(len(one), -1) if one.groups is None else one.groups for one in lists]
    return np.concatenate(each).astype(np.int32)


_NOBODY = np.empty(0, np.int64)
_NO_IMAGES = Listed((), (), _NOBODY, _NOBODY)


def _sorted(listed: Listed) -> Listed:
    """In the order of their keys, as in the released lists: a run from the folder is the run from the pack."""
    rows = np.argsort(np.array([key.encode() for key in listed.keys] or np.empty(0, "S1")), kind="stable")
    return _taken(listed, rows)


def _taken(listed: Listed, rows: np.ndarray) -> Listed:
    groups = None if listed.groups is None else listed.groups[rows]
    origins, keys = ([names[row] for row in rows.tolist()] for names in (listed.origins, listed.keys))
    return Listed(origins, keys, listed.true[rows], listed.noisy[rows], groups)


class _Work:
    """One import."""

    def __init__(self, source: Source, out: Path, bar: Bar, threads: int) -> None:
        self._source, self._out, self._bar, self._threads = source, out, bar, threads
        self._broken: list[tuple[Path, str]] = []
        self._suspect: dict[Path, str] = {}

    def to_folder(self) -> Written:
        with resumable(self._out, self._source.identity) as target:
            source = self._sound(partial(_copied, self._source, target))
            splits = {name: Labelled(one.keys, one.true, one.noisy, one.groups) for name, one in source.splits.items()}
            rng = np.random.default_rng([1, 1])  # shuffles lines
            names = list(source.class_names)
            write_annotations(target, names, names, splits, rng, source.group_names)
            return self._written(source, target / LEFT_OUT, target / ORIGINALS)

    def to_pack(self) -> Written:
        names = [self._out.with_name(f"{self._out.name}.{name}") for name in (LEFT_OUT, ORIGINALS)]
        for path in (self._out, *names):
            check_output(path)
        source = self._source
        if source.side or self._is_there():  # what is made of pixels in memory needs no look
            return self._packed(source, *names)
        journal = self._out.with_name(f"{self._out.name}.looked")
        with remembered(journal, source.identity, self._out) as sound:
            kept = self._sound(lambda origin, _: _read(source, origin)[:2], sound, "images to check")
            return self._packed(kept, *names)

    def _is_there(self) -> bool:
        """Whether the pack is there, with all images. Another file is refused before thousands of them are decoded."""
        if not self._out.exists():
            return False
        release = release_of(self._source)
        try:
            pack = open_pack(self._out)
        except DataError:
            raise not_this_pack(self._out) from None
        if not np.isin(pack.index.keys, release.index.keys).all():
            raise not_this_pack(self._out)
        return pack.identity == identity_of(release, Packing()).hex()

    def _packed(self, source: Source, left_out: Path, originals: Path) -> Written:
        total = sum(map(len, source.splits.values()))
        packing = Packing(source.side, decoded=True) if source.side else Packing()
        with self._bar("images to pack", total) as advance:
            fresh = write_pack(release_of(source), self._out, packing, self._threads, advance)
        return replace(self._written(source, left_out, originals), fresh=fresh)

    def _sound(
        self, handle: Callable[[str, str], tuple[str, str]], known: Sound | None = None, what: str = "images"
    ) -> Source:
        """The dataset without its broken images, after `handle` had each that is not known to be sound."""
        pairs = [pair for one in self._source.splits.values() for pair in zip(one.origins, one.keys, strict=True)]
        rows = [row for row in range(len(pairs)) if not known or row not in known.rows]
        broken: set[str] = set()
        with self._bar(what, len(pairs)) as advance, ThreadPoolExecutor(max(READERS, self._threads)) as pool:
            advance(len(pairs) - len(rows))
            for begin in range(0, len(rows), CHUNK):
                chunk = rows[begin : begin + CHUNK]
                found = list(pool.map(lambda row: handle(*pairs[row]), chunk))
                for row, (problem, suspect) in zip(chunk, found, strict=True):
                    origin = pairs[row][0]
                    if problem:
                        broken.add(origin)
                        self._broken.append((self._source.place(origin), problem))
                    elif suspect:
                        self._suspect[self._source.place(origin)] = suspect
                if known:
                    known.add([row for row, one in zip(chunk, found, strict=True) if not any(one)])
                advance(len(chunk))
        if self._broken and (self._source.own or len(broken) > max(FEW_BROKEN, SHARE_BROKEN * len(pairs))):
            if known:
                known.forget()
            _refuse(self._broken, self._out)
        splits = {
            name: _taken(one, np.flatnonzero([origin not in broken for origin in one.origins]))
            for name, one in self._source.splits.items()
        }
        return replace(self._source, splits=splits)

    def _written(self, source: Source, left_out: Path, originals: Path) -> Written:
        """Write what is beside the images, and say what was done."""
        if source.left_out or self._broken:
            write_list(left_out, [*source.left_out, *self._broken])
        else:
            left_out.unlink(missing_ok=True)  # of an import before, beside a pack that was deleted
        originals.write_bytes(table_of_origins(source.splits).encode("utf-8", "backslashreplace"))
        files = [*source.left_out, *((path, BROKEN) for path, _ in self._broken)]
        return Written({name: len(one) for name, one in source.splits.items()}, files, self._suspect)


def _copied(source: Source, target: Path, origin: str, key: str) -> tuple[str, str]:
    """Write one image; returns what is wrong with it, and what is suspect about it, or nothing."""
    path = target / key
    if path.exists() and path.stat().st_size:
        return "", ""  # of an earlier start
    problem, suspect, data = _read(source, origin)
    if problem:
        return problem, suspect
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_name(f"{path.name}.part")
    begun.write_bytes(data)
    begun.replace(path)
    return problem, suspect


def _read(source: Source, origin: str) -> tuple[str, str, bytes]:
    """What is wrong with one image, what is suspect about it, and its file as it is to be written."""
    place = source.place(origin)
    try:
        data = source.encoded(origin)
        if source.side:
            return "", "", data
        if source.own:
            data, look = as_upright_jpeg(data)
        else:
            look = look_at(data)
    except DamageError as error:
        return _unreadable(place, error), "", b""
    except DataError as error:
        return str(error), "", b""
    except OSError as error:
        return f"{place} cannot be read: {error.strerror}.", "", b""
    return "", look.suspect, data


def _unreadable(place: Path, error: DamageError) -> str:
    return f"{place} cannot be read as an image ({error})."


def _refuse(broken: list[tuple[Path, str]], out: Path) -> NoReturn:
    """Refuse an import for all of its broken files at once."""
    first = broken[0][1]
    if len(broken) == 1:
        raise DataError(first)
    names = out.resolve().with_name(f"{out.name}.broken.txt")
    check_output(names)
    write_list(names, broken)
    raise DataError(f"{len(broken):,} files cannot be imported, all named in {names}; the first: {first}")


def write_list(path: Path, files: Sequence[tuple[Path, str]]) -> None:
    """A file a line, whatever characters its name has: why, a tab, its path."""
    lines = (f"{why}\t{printable(file)}\n" for file, why in files)
    path.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
