"""A short hash of the running code, by which the server notices clients that run another version."""

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("client_app", "config", "data", "learning", "messages", "methods", "server_app", "simulation")


def code_files(root: Path = ROOT) -> list[Path]:
    """The app's Python files and presets below `root`, in a fixed order."""
    files = [path for package in PACKAGES for path in (root / package).rglob("*") if path.suffix in (".py", ".toml")]
    files += root.glob("*.py")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


@cache
def running_code() -> str:
    """`code_fingerprint` of this app when first called: files that change later do not run in this process."""
    return code_fingerprint()


def code_fingerprint(root: Path = ROOT) -> str:
    """16 hex digits of a hash of the names and contents of `code_files`."""
    digest = hashlib.sha256()
    for path in code_files(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
