"""A short hash of the code that is running, so that the server can tell when a client runs another version."""

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("client_app", "config", "data", "learning", "messages", "methods", "server_app", "simulation")


def code_files(root: Path = ROOT) -> list[Path]:
    """The app's Python files and presets below `root`, in a fixed order."""
    files = [path for room in ROOMS for path in (root / room).rglob("*") if path.suffix in (".py", ".toml")]
    files += root.glob("*.py")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


@cache
def running_code() -> str:
    """`code_fingerprint` of this app, of when it was first asked for: files that change later do not run here."""
    return code_fingerprint()


def code_fingerprint(root: Path = ROOT) -> str:
    """16 hex digits over names and contents of `code_files`."""
    digest = hashlib.sha256()
    for path in code_files(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
