"""A short hash of the running code, by which the server notices clients that run another version."""

import hashlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "client_app", "config", "custom", "data", "learning", "messages", "methods", "models", "server_app", "simulation",
)  # fmt: skip


def code_files(root: Path = ROOT) -> list[Path]:
    """The app's Python files and presets below `root`, in a fixed order; not what else lies in a checkout."""
    files = [path for package in PACKAGES for path in (root / package).rglob("*") if path.suffix in (".py", ".toml")]
    files = [path for path in files if _is_carried(path.relative_to(root))]
    files += [path for path in (root / "task.py",) if path.is_file()]
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _is_carried(path: Path) -> bool:
    """Whether Flower puts it into the bundle, which decides about files in `custom`, where anything may lie."""
    return path.parts[0] != "custom" or (path.suffix == ".py" and not re.match(r"test_|.*_test\.py", path.name))


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
