"""A ClientApp that always runs the code of its own bundle.

Flower's simulation pickles the ClientApp by reference, and a Ray actor then imports ``client_app`` from the first
folder on its path: the working directory of whoever started the local SuperLink, which may hold another checkout of
this app. `PinnedClientApp` pickles as "import ``client_app`` from this folder" instead.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

BUNDLE = str(Path(__file__).resolve().parents[1])


def _loader() -> Callable[[str], ClientApp]:
    # A nested function is pickled by value, so that it needs no import of ours on the other side.
    def load(bundle: str) -> ClientApp:
        import importlib
        import sys
        from pathlib import Path

        # A remote Ray node has no copy of the bundle and must import what is installed there.
        if Path(bundle).is_dir() and sys.path[0] != bundle:
            sys.path.insert(0, bundle)
        return importlib.import_module("client_app").app  # type: ignore[no-any-return]

    return load


class PinnedClientApp(ClientApp):
    """`ClientApp` that unpickles as the ``app`` of the bundle it was defined in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _loader(), (BUNDLE,)
