"""Writes a release: keys and text files in exactly the released form, complete or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError, StoppedByUserError
from data.layout.finding import (
    CATEGORIES,
    CLEAN_LABELS,
    LIST_FILES,
    NOISY_LABELS,
    SPLITS,
    TRUE_LABELS,
    WRONG,
    WRONG_LABELS,
)
from data.layout.groups import GROUP_NAMES, GROUPS
from data.outputs import check_empty, check_output

CATEGORIES_CHN = "category_names_chn.txt"


@dataclass(frozen=True)
class Labelled:
    """Images of one list.

    Attributes:
        keys: Released form, such as ``images/7/88/314159265,2718281788.jpg``.
        true: (n,) true class of each; -1 where it is unknown, in noisy train `WRONG` where no more is known than that
            the noisy label is wrong.
        noisy: (n,) noisy label of each, or -1 where it carries none.
        groups: (n,) number of whom or where each comes from, or -1; None if nothing is known of any.
    """

    keys: Sequence[str]
    true: np.ndarray
    noisy: np.ndarray
    groups: np.ndarray | None = None


def draw_keys(count: int, rng: np.random.Generator) -> list[str]:
    """Invented keys in the released form: two 32-bit numbers, in the folder that the second one modulo 1000 names."""
    keys: dict[str, None] = {}
    while len(keys) < count:
        for first, second in rng.integers(0, 2**32, (count - len(keys), 2)).tolist():
            keys[f"images/{second % 1000 // 100}/{second % 100:02}/{first},{second}.jpg"] = None
    return list(keys)


def write_annotations(
    folder: Path,
    names: Sequence[str],
    names_chn: Sequence[str],
    splits: Mapping[str, Labelled],
    rng: np.random.Generator,
    group_names: Sequence[str] = (),
) -> None:
    """Write the eight released text files, with `TRUE_LABELS` and `WRONG_LABELS` beside them if there are any such; of
    lists that are left out, none.

    As released: key lists are sorted by byte and end without a newline, as does the English category file; label files
    are shuffled and end with one; they cover more than the lists, because images of the clean lists can carry a noisy
    label as well. A label file without a label is not written, unless a list needs it.

    Args:
        folder: Where to write.
        names: English class names in index order.
        names_chn: Chinese ones.
        splits: At least one of `SPLITS`.
        rng: Shuffles the label files.
        group_names: By the numbers in `Labelled.groups`; with some, the two files of `data.layout.groups` are written.
    """
    _write(folder / CATEGORIES, "\n".join(names))
    _write(folder / CATEGORIES_CHN, "".join(f"{name}\n" for name in names_chn))
    for split, part in splits.items():
        _write(folder / LIST_FILES[split], "\n".join(sorted(part.keys)))
    noisy_train = [splits[split] for split in SPLITS[:1] if split in splits]
    clean = [splits[split] for split in SPLITS[1:] if split in splits]
    _write_labels(folder / CLEAN_LABELS, [(part.keys, part.true) for part in clean], rng, bool(clean))
    noisy = [(part.keys, part.noisy) for part in (*noisy_train, *clean)]
    _write_labels(folder / NOISY_LABELS, noisy, rng, bool(noisy_train))
    _write_labels(folder / TRUE_LABELS, [(part.keys, part.true) for part in noisy_train], rng, needed=False)
    if wrong := [part.keys[row] for part in noisy_train for row in np.flatnonzero(part.true == WRONG).tolist()]:
        _write(folder / WRONG_LABELS, "\n".join(sorted(wrong)))
    if group_names:
        grouped = [(part.keys, part.groups) for part in splits.values() if part.groups is not None]
        _write_labels(folder / GROUPS, grouped, rng, needed=True)
        _write(folder / GROUP_NAMES, "".join(f"{name}\n" for name in group_names))


def _write_labels(
    path: Path, parts: Sequence[tuple[Sequence[str], np.ndarray]], rng: np.random.Generator, needed: bool
) -> None:
    lines = [
        f"{key} {label}\n"
        for keys, labels in parts
        for key, label in zip(keys, labels.tolist(), strict=True)
        if label >= 0
    ]
    if lines or needed:
        _write(path, "".join(lines[row] for row in rng.permutation(len(lines))))


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


@contextlib.contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`: renamed to it if the block succeeds, removed if not.

    Raises:
        DataError: `out` exists and is not an empty folder, is the current folder, or its parent cannot be written to.
    """
    out = place_of_folder(out)
    with _errors_named(out):
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with _errors_named(out):
            yield temporary
            temporary.chmod(0o755)  # mkdtemp's folders are private to the user
            put_in_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def resumable(out: Path, identity: str) -> Iterator[Path]:
    """A folder beside `out` that is renamed to it when the block succeeds, and that another start finds as it was left.

    Its name is that of `out`, hidden, with the suffix ``.importing``. A start with another `identity` begins anew, and
    DataError in the block removes what is there.

    Raises:
        DataError: As from `complete_or_absent`, or another process is at it.
    """
    out = place_of_folder(out)
    work = out.with_name(f".{out.name}.importing")
    known, lock_file = work.with_name(f"{work.name}.identity"), work.with_name(f"{work.name}.lock")
    for path in (known, lock_file):
        check_output(path)
    check_output(work, wanted="a folder")
    with _errors_named(out), lock_file.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out} is being written by another process; wait for it, or give another --out.") from None
        if not known.exists() or known.read_text(encoding="utf-8") != identity:
            shutil.rmtree(work, ignore_errors=True)
            known.write_text(identity, encoding="utf-8")
        work.mkdir(exist_ok=True)
        try:
            yield work
            put_in_place(work, out)
        except StoppedByUserError:
            raise
        except DataError:  # the same command would be refused again
            shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            if not work.exists():
                known.unlink()
                lock_file.unlink()


def place_of_folder(out: Path) -> Path:
    """Where a new folder is to be, without links; what is above it is made.

    Raises:
        DataError: As from `complete_or_absent`.
    """
    check_output(out, wanted="a folder")
    out = out.resolve()  # a link stays a link, and what it points to is written
    if out == Path.cwd():
        raise DataError(f"{out} is the current folder; it must be another one, because it is replaced as a whole.")
    check_empty(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}; its parent must be a writable folder.") from None
    return out


def put_in_place(folder: Path, out: Path) -> None:
    """Rename a folder, unless something has come to be at its place."""
    try:
        os.rename(folder, out)  # noqa: PTH104 (replaces an empty folder and refuses a full one, in one step)
    except OSError:
        raise DataError(f"{out} was written by another process in the meantime; nothing there was changed.") from None


@contextlib.contextmanager
def _errors_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk, above all
        reason = error.strerror or error
        raise DataError(f"{out} cannot be written: {reason}; there must be enough space, and permission.") from None
