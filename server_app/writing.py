"""One sentence when the machine does not let the server write: a full disk, a folder that is gone, too many open files.

Everything that a run writes passes here, callbacks through `Guarded`. Whatever does not come from the machine is a bug
of ours, and keeps its traceback; but no picture ends a run, whoever is to blame.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from logging import ERROR, WARNING
from pathlib import Path

from flwr.common import log
from safetensors import SafetensorError

from data.text import one_line
from server_app.callbacks import Callback, History, RoundResult
from server_app.stopping import EXPECTED, RunStoppedError

GONE = "put its folder back where it was"
BROKEN = "check that disk, or the connection to it"
# What the machine may refuse, and what to do about it.
REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f unlimited`)",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`)",
    errno.ENFILE: "end other programs, which hold too many open files",
    errno.ENOMEM: "free some memory",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make that folder writable"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR), GONE),
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
         errno.EHOSTUNREACH, errno.EREMOTEIO, errno.ENOLCK, errno.EBUSY), BROKEN,
    ),
}  # fmt: skip


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`, a file or the folder of several.

    Raises:
        RunStoppedError: The machine does not let it be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunStoppedError(f"{in_words(path, error)}, then resume the run.") from error


def in_words(path: Path, error: OSError | SafetensorError) -> str:
    """What cannot be written, why, and what to do; raises `error` itself if the machine is not to blame."""
    number = _number(error)
    if number not in REMEDIES or (REMEDIES[number] == GONE and not _is_below(error, path.parent)):
        raise error
    return f"{path} cannot be written ({os.strerror(number)}); {REMEDIES[number]}"


def why_not_written(path: Path, error: Exception) -> str:
    """Why something that the run can do without is not written, whoever is to blame."""
    if isinstance(error, (OSError, SafetensorError)):
        with contextlib.suppress(OSError, SafetensorError):
            return in_words(path, error)
    return f"{path} cannot be written ({type(error).__name__}: {one_line(str(error))})"


def _number(error: OSError | SafetensorError) -> int:
    """The system's number of an error; 0 if it has none. Safetensors has it in the text alone."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None) or 0


def _is_below(error: OSError | SafetensorError, folder: Path) -> bool:
    """Whether what is missing may be in `folder`: elsewhere it is a file that we should have."""
    name = getattr(error, "filename", None)
    return name is None or Path(os.fsdecode(name)).absolute().is_relative_to(folder)


class Guarded(Callback):
    """A callback whose failures to write are sentences: of the run if it needs the file, else one warning."""

    def __init__(self, callback: Callback, run_dir: Path) -> None:
        self._callback, self._path = callback, run_dir / callback.writes
        self._has_warned = False

    def on_start(self, history: History) -> None:
        with self._writing():
            self._callback.on_start(history)

    def after_round(self, result: RoundResult) -> None:
        with self._writing():
            self._callback.after_round(result)

    def on_end(self) -> None:
        with self._writing():
            self._callback.on_end()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self._path) if self._callback.needed else self._warning_once()

    @contextlib.contextmanager
    def _warning_once(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a library that draws makes of a name, or lacks
            if not self._has_warned:
                log(WARNING, "%s; the run does without it.", why_not_written(self._path, error))
            self._has_warned = True


@contextlib.contextmanager
def ending(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Call every `on_end` after the block, whatever happens in it or in one of them; what failed first is raised."""
    first: BaseException | None = None
    try:
        yield
    except BaseException as error:
        first = error
    for callback in callbacks:
        try:
            callback.on_end()
        except Exception as error:
            if first is None:
                first = error
            elif isinstance(error, EXPECTED):
                log(WARNING, "At the end of the run: %s", error)
            else:
                log(ERROR, "%s failed at the end of the run", type(callback).__name__, exc_info=error)
    if first is not None:
        raise first
