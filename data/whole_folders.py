"""Writes folders that are whole or absent: in one go, or resumed by the next start."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data.errors import DataError, StoppedByUserError
from data.outputs import check_empty, check_output, write_alone, writing


@contextlib.contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`: renamed to it if the block succeeds, removed if not.

    Raises:
        DataError: `out` exists and is not an empty folder, is the current folder, or its parent cannot be written to.
    """
    out = _place(out)
    with writing(out):
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with writing(out):
            yield temporary
            temporary.chmod(0o755)  # mkdtemp's folders are private to the user
            _put(temporary, out)
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
    out = _place(out)
    work = out.with_name(f".{out.name}.importing")
    known, lock_file = work.with_name(f"{work.name}.identity"), work.with_name(f"{work.name}.lock")
    for path in (known, lock_file):
        check_output(path)
    check_output(work, wanted="a folder")
    with writing(out), lock_file.open("ab") as lock:
        write_alone(lock, out)
        if not known.exists() or known.read_text(encoding="utf-8") != identity:
            shutil.rmtree(work, ignore_errors=True)
            known.write_text(identity, encoding="utf-8")
        work.mkdir(exist_ok=True)
        try:
            yield work
            _put(work, out)
        except StoppedByUserError:
            raise
        except DataError:  # the same command would be refused again
            shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            if not work.exists():
                known.unlink()
                lock_file.unlink()


def _place(out: Path) -> Path:
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


def _put(folder: Path, out: Path) -> None:
    """Rename a folder, unless something has come to be at its place."""
    try:
        os.rename(folder, out)  # noqa: PTH104 (replaces an empty folder and refuses a full one, in one step)
    except OSError:
        raise DataError(f"{out} was written by another process in the meantime; nothing there was changed.") from None
