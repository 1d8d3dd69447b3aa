"""A ClientApp that always runs the code of its own bundle, also on machines that do not have it.

Flower's simulation pickles the ClientApp by reference, and a Ray actor then imports ``client_app`` from the first
folder on its path: the working directory of whoever started the local SuperLink, which may hold another checkout of
this app. `PinnedClientApp` pickles as "import ``client_app`` from this folder" instead. On another machine of a Ray
cluster there is no such folder, so the code travels along, about 150 kB a message, and is unpacked there once.
"""

import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.clientapp import ClientApp

from fingerprint import code_files, code_fingerprint

BUNDLE = str(Path(__file__).resolve().parents[1])


@cache
def packed_code() -> tuple[str, bytes]:
    """Fingerprint of the bundle's code, and a zip of it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for path in code_files(Path(BUNDLE)):
            name = path.relative_to(BUNDLE).as_posix()
            files.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return code_fingerprint(Path(BUNDLE)), archive.getvalue()


def _loader() -> Callable[[str, str, bytes], Callable[..., Message]]:
    # A nested function is pickled by value, so that it needs no import of ours on the other side.
    def load(bundle: str, fingerprint: str, archive: bytes) -> Callable[..., Message]:
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
                folder.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder.parent) as new:
                    zipfile.ZipFile(io.BytesIO(archive)).extractall(Path(new) / "code")
                    with contextlib.suppress(OSError):  # another actor was faster
                        (Path(new) / "code").rename(folder)
            if sys.path[0] != str(folder):
                sys.path.insert(0, str(folder))
            return importlib.import_module("client_app").app  # type: ignore[no-any-return]
        except (ImportError, OSError) as error:
            reason = (
                f"the app cannot be loaded on {socket.gethostname()} ({error}); every machine must have the same Python"
                " packages and a cache folder that can be written."
            )
            return lambda message, context: Reply(Error(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, reason), reply_to=message)

    return load


class PinnedClientApp(ClientApp):
    """`ClientApp` that unpickles as the ``app`` of the bundle it was defined in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _loader(), (BUNDLE, *packed_code())
