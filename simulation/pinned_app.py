"""A ClientApp that always runs the code of its own bundle, also on machines that do not have it.

Flower's simulation pickles the ClientApp by reference, and a Ray actor then imports the app's module from the first
folder on its path: the working directory of whoever started the local SuperLink, which may hold another checkout of
this app. `PinnedClientApp` pickles as "import that module from this folder" instead. On another machine of a Ray
cluster there is no such folder, so it gets the code from the cluster's head, and unpacks it once. The code does not
travel with each message: 170 kB of it would take 2 ms of the 3 that Ray needs for one.
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
NAMESPACE = "clothing1m-fl"  # of the code among what Ray's head keeps


@cache
def packed_code() -> tuple[str, bytes]:
    """Fingerprint of the bundle's code, and a zip of it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for path in code_files(Path(BUNDLE)):
            name = path.relative_to(BUNDLE).as_posix()
            files.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return code_fingerprint(Path(BUNDLE)), archive.getvalue()


def shared_code() -> tuple[str, bytes | None]:
    """`packed_code`, without the zip where Ray runs: its head keeps it, under the fingerprint."""
    fingerprint, archive = packed_code()
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return fingerprint, archive
    _publish(ray.get_runtime_context().get_job_id())
    return fingerprint, None


@lru_cache(maxsize=1)
def _publish(job: str) -> None:
    """Give the zip to the head of the Ray cluster that this process works for as `job`, where all machines find it.

    Not to its object store: machines fail to fetch an object that a message refers to while it is unpickled.
    """
    kept: Any = importlib.import_module("ray.experimental.internal_kv")
    kept._internal_kv_put(*packed_code(), namespace=NAMESPACE)


def _loader() -> Callable[[str, str, str, bytes | None], Callable[..., Message]]:
    # A nested function is pickled by value, so that it needs no import of ours on the other side.
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
                    with contextlib.suppress(OSError):  # another actor was faster
                        (Path(new) / "code").rename(folder)
            if sys.path[0] != str(folder):
                sys.path.insert(0, str(folder))
            return importlib.import_module(name).app  # type: ignore[no-any-return]
        except (ImportError, OSError) as error:
            reason = (
                f"the app cannot be loaded on {socket.gethostname()} ({error}); every machine must have the same Python"
                " packages and a cache folder that can be written."
            )
            return lambda message, context: Reply(Error(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, reason), reply_to=message)

    return load


class PinnedClientApp(ClientApp):
    """`ClientApp` that unpickles as the ``app`` of a module of the bundle that this file belongs to."""

    def __init__(self, module: str) -> None:
        """Pickle as the ``app`` of `module`, which is where this one is made."""
        super().__init__()
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return _loader(), (BUNDLE, self._module, *shared_code())
