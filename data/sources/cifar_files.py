"""Finds the files of CIFAR-10 and CIFAR-100: in the python or the binary form, in a folder or in the archive around it.

CIFAR-10 and CIFAR-100: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from data.errors import DataError
from data.reading import read_at_most
from data.text import printable

MOST_BYTES = 512 << 20  # of a file; the longest has 155 MB
MOST_UNPACKED = 1 << 30  # of an archive; each has some 180 MB
MOST_MEMBERS = 10_000  # of an archive; each has ten or so
BUFFER = 1 << 20  # bytes
GZIP, TAR = b"\x1f\x8b", b"ustar"  # at byte 0, and at byte 257


@dataclass(frozen=True)
class Form:
    """Names of the files of a dataset in one form.

    Attributes:
        folder: As published, and `archive` likewise.
        train: Of training images, in the order of labels that somebody else publishes for them.
        test: Of test images.
        names: Of the names of classes.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, *self.names)


@dataclass(frozen=True)
class Labels:
    """One kind of label that images have: its name in python files, how many classes, and where their names are."""

    field: str
    classes: int
    names_field: str
    names_file: str


@dataclass(frozen=True)
class Kind:
    """A dataset.

    Attributes:
        name: Of the command.
        title: For people.
        python: Files that are pickles; `binary` those that are records.
        labels: By what they are called here, in the order in which a record has them.
        ratio: Images of a training file for each of the test file.
    """

    name: str
    title: str
    python: Form
    binary: Form
    labels: dict[str, Labels]
    ratio: int


CIFAR10 = Kind(
    "cifar10",
    "CIFAR-10",
    Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        ("batches.meta",),
    ),
    Form(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        ("batches.meta.txt",),
    ),
    {"fine": Labels("labels", 10, "label_names", "batches.meta.txt")},
    ratio=1,
)
CIFAR100 = Kind(
    "cifar100",
    "CIFAR-100",
    Form("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", ("meta",)),
    Form(
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        ("train.bin",),
        "test.bin",
        ("coarse_label_names.txt", "fine_label_names.txt"),
    ),
    {
        "coarse": Labels("coarse_labels", 20, "coarse_label_names", "coarse_label_names.txt"),
        "fine": Labels("fine_labels", 100, "fine_label_names", "fine_label_names.txt"),
    },
    ratio=5,
)
KINDS = (CIFAR10, CIFAR100)
WANTED = frozenset(name for kind in KINDS for form in (kind.python, kind.binary) for name in form.files)


@dataclass(frozen=True)
class Files:
    """The files of a dataset.

    Attributes:
        root: The folder or archive that they are in.
        form: Which they are.
        read: A file's bytes by its name, once.
    """

    root: Path
    form: Form
    read: Callable[[str], bytes]


def find_files(source: Path, kind: Kind) -> Files:
    """The files of a dataset; of those in the python form and in the binary one, the former.

    Args:
        source: A folder with the files, the folder above it, which may also hold the archive, or the archive.
        kind: The dataset.

    Raises:
        DataError: They are not there, or not all, or the archive is damaged.
    """
    try:
        is_folder, is_file, is_there = source.is_dir(), source.is_file(), source.exists()
        places = [source, *(source / form.folder for form in (kind.python, kind.binary))]
        folders = {place: _wanted_in(place) for place in places} if is_folder else {}
        archives = [source / form.archive for form in (kind.python, kind.binary) if (source / form.archive).is_file()]
    except OSError as error:
        raise DataError(f"{printable(source)} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise DataError(f"{str(source)!r} cannot be a path.") from None
    if not is_there:
        raise DataError(f"{printable(source)} is missing; it must be {_allowed(kind)}.")
    if not is_folder and not is_file:  # a pipe would be waited for
        raise DataError(f"{printable(source)} is neither a folder nor a file; it must be {_allowed(kind)}.")
    if is_file:
        return _in_archive(source, kind)
    for place, names in folders.items():
        if form := _form(names, kind):
            return Files(place, _complete(place, form, names, kind), partial(_read, place))
    if archives:
        return _in_archive(archives[0], kind)
    raise DataError(_why_none(source, folders[source], kind))


def _read(folder: Path, name: str) -> bytes:
    return read_at_most(folder / name, MOST_BYTES)


def _wanted_in(folder: Path) -> frozenset[str]:
    """Which files of any of these datasets a folder has."""
    return frozenset(name for name in WANTED if (folder / name).is_file())


def _form(names: frozenset[str], kind: Kind) -> Form | None:
    """The form of which most files are there, if there are any."""
    form = max((kind.python, kind.binary), key=lambda form: len(names.intersection(form.files)))
    return form if names.intersection(form.files) else None


def _complete(root: Path, form: Form, names: frozenset[str], kind: Kind) -> Form:
    missing = [name for name in form.files if name not in names]
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}; {kind.title} has {', '.join(form.files)}.")
    return form


def _why_none(source: Path, names: frozenset[str], kind: Kind) -> str:
    for other in KINDS:
        if other is not kind and _form(names, other):
            return f"{source} holds {other.title}; import it with `python -m data import {other.name}`."
    return f"{source} holds no file of {kind.title}; it must be {_allowed(kind)}."


def _allowed(kind: Kind) -> str:
    return (
        f"the folder {kind.python.folder} or {kind.binary.folder}, the folder above it, or {kind.python.archive} or"
        f" {kind.binary.archive}"
    )


def _in_archive(path: Path, kind: Kind) -> Files:
    contents = _unpacked(path, kind)
    names = frozenset(contents)
    form = _form(names, kind)
    if form is None:
        raise DataError(_why_none(path, names, kind))
    return Files(path, _complete(path, form, names, kind), contents.pop)


def _unpacked(path: Path, kind: Kind) -> dict[str, bytes]:
    """The files in an archive, wherever in it they are; nothing is written to disk."""
    try:
        with path.open("rb") as file:
            begins = file.read(512)
            file.seek(0)
            if not begins.startswith(GZIP) and begins[257:262] != TAR:
                raise _NoArchiveError
            with _opened(file, begins) as stream:
                bounded = io.BufferedReader(_Bounded(stream, path), BUFFER)
                contents = dict(_members(bounded, path))
                while bounded.read(BUFFER):  # the checksum of all is at the end
                    pass
                return contents
    except _NoArchiveError:
        raise DataError(f"{path} is no .tar.gz file; it must be {_allowed(kind)}.") from None
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception:  # whatever the libraries stumble over is damage
        raise DataError(f"{path} is damaged or not all there; download it again.") from None


class _NoArchiveError(Exception):
    pass


def _opened(file: BinaryIO, begins: bytes) -> BinaryIO:
    return gzip.open(file) if begins.startswith(GZIP) else file  # type: ignore[return-value]


def _members(stream: BinaryIO, path: Path) -> Iterator[tuple[str, bytes]]:
    seen = set()
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER) as archive:
        for number, member in enumerate(archive):
            if number >= MOST_MEMBERS:
                raise DataError(f"{path} holds more than {MOST_MEMBERS:,} files; it must be as published.")
            name = member.name.rpartition("/")[2]
            if name not in WANTED or not member.isreg():
                continue
            if member.issparse():  # whose holes unpack to any length
                raise DataError(f"{path} has a sparse file, {name}; it must be as published.")
            if name in seen:
                raise DataError(f"{path} has two files called {name}; it must be as published.")
            seen.add(name)
            found = archive.extractfile(member)
            assert found is not None  # of a regular file
            yield name, found.read()


class _Bounded(io.RawIOBase):
    """Reads no more of an archive than a dataset can be, whatever a few bytes unpack to."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, MOST_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"{self._path} unpacks to more than {MOST_UNPACKED:,} bytes; it must be as published.")
        buffer[: len(data)] = data
        return len(data)
