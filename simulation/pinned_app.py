"""A ClientApp that always runs the code of its own bundle, even on machines that do not have it.

Flower's simulation pickles the ClientApp by reference, and a Ray actor then imports the app's module from the first
folder on its path: the directory in which the local SuperLink was started, which may hold another checkout of this app.
`PinnedClientApp` instead pickles as "import that module from this folder". Another machine of a Ray cluster has no such
folder, so it gets the code from the cluster's head and unpacks it once. The code does not travel with each message:
when it was 170 kB, that took 2 ms of the 3 that Ray needs for one.
"""

import importlib
import io
import sys
import zipfile
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.clientapp import ClientApp

from messages.fingerprint import code_files, code_fingerprint

BUNDLE = str(Path(__file__).resolve().parents[1])
NAMESPACE = "clothing1m-fl"  # for the code in the key-value store of Ray's head


@cache
def packed_code() -> tuple[str, bytes]:
    """Fingerprint of the bundle's code, and a zip of the code."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for path in code_files(Path(BUNDLE)):
            name = path.relative_to(BUNDLE).as_posix()
            files.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return code_fingerprint(Path(BUNDLE)), archive.getvalue()


def shared_code() -> tuple[str, bytes | None]:
    """`packed_code`, but without the zip if Ray runs: its head keeps that, under the fingerprint."""
    fingerprint, archive = packed_code()
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return fingerprint, archive
    _publish(ray.get_runtime_context().get_job_id())
    return fingerprint, None


@lru_cache(maxsize=1)
def _publish(job: str) -> None:
    """Store the zip on the head of the Ray cluster, where all machines find it, once per `job`.

    It is not in Ray's object store, because a machine cannot fetch an object while it unpickles the message that
    refers to it.
    """
    kept: Any = importlib.import_module("ray.experimental.internal_kv")
    kept._internal_kv_put(*packed_code(), namespace=NAMESPACE)


def _loader() -> Callable[[str, str, str, bytes | None], Callable[..., Message]]:
    # A nested function is pickled by value, so the other side needs no import of this app.
    def load(bundle: str, name: str, fingerprint: str, archive: bytes | None) -> Callable[..., Message]:
        import contextlib
        import importlib
        import io
        import os
        import socket
        import sys
        import tempfile
        import zipfile
        from pathlib import Path

        from flwr.app import Error
        from flwr.app import Message as Reply
        from flwr.common.constant import ErrorCode

        try:
            folder = Path(bundle)
            if not folder.is_dir():
                cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
                folder = cache_home / "clothing1m-fl" / "code" / fingerprint
            if not folder.is_dir():
                if archive is None:
                    kept = importlib.import_module("ray.experimental.internal_kv")
                    archive = kept._internal_kv_get(fingerprint, namespace="clothing1m-fl")
                if archive is None:
                    raise ImportError("Ray's head does not have its code")
                folder.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder.parent) as new:
                    zipfile.ZipFile(io.BytesIO(archive)).extractall(Path(new) / "code")
                    with contextlib.suppress(OSError):  # another actor did it first
                        (Path(new) / "code").rename(folder)
            if sys.path[0] != str(folder):
                sys.path.insert(0, str(folder))
            return importlib.import_module(name).app  # type: ignore[no-any-return]
        except (ImportError, OSError) as error:
            reason = (
                f"the app cannot be loaded on {socket.gethostname()} ({error}); every machine must have the same Python"
                " packages and a writable cache folder."
            )
            return lambda message, context: Reply(Error(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, reason), reply_to=message)

    return load


class PinnedClientApp(ClientApp):
    """A `ClientApp` that unpickles as the ``app`` of a module in this file's bundle."""

    def __init__(self, module: str) -> None:
        """Pickle as the ``app`` of `module`, the one that creates this object."""
        super().__init__()
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return _loader(), (BUNDLE, self._module, *shared_code())
