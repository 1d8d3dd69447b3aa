"""The app as an experiment runs it: a copy, so that what is edited meanwhile reaches no row that starts later."""

import shutil
import tempfile
import tomllib
from pathlib import Path

from experiments.errors import ExperimentError
from messages.fingerprint import code_fingerprint

ROOT = Path(__file__).parents[1]
FOLDER = "code"  # in an experiment's
DEFAULTS = "pyproject.toml"  # has those of the run config


def app_copy(folder: Path, code: str, root: Path = ROOT) -> Path:
    """Copy what Flower bundles of the app into an experiment's folder, unless it is there already.

    Args:
        folder: The experiment's.
        code: Fingerprint of the code that the experiment was planned with.
        root: The checkout.

    Returns:
        The copy, from which `flwr run` starts rows.

    Raises:
        ExperimentError: The code has changed since it was planned.
    """
    copy = folder / FOLDER
    if (copy / "pyproject.toml").is_file() and code_fingerprint(copy) == code:
        return copy
    with tempfile.TemporaryDirectory(dir=folder, prefix=".code-") as temporary:
        new = Path(temporary, FOLDER)
        for name in bundled(root):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, new / name)
        if code_fingerprint(new) != code:
            raise ExperimentError(f"the code in {root} was changed while this start began; start again.")
        if copy.is_dir() and not copy.is_symlink():
            shutil.rmtree(copy)
        new.rename(copy)
    return copy


def drop_outdated(folder: Path, root: Path = ROOT) -> None:
    """Remove the copy of an earlier start if the defaults in pyproject.toml are others now; fingerprints leave it out.

    Args:
        folder: The experiment's; nothing runs in it.
        root: The checkout.
    """
    copy = folder / FOLDER
    if copy.is_dir() and not copy.is_symlink() and not _same(copy / DEFAULTS, root / DEFAULTS):
        shutil.rmtree(copy)


def _same(left: Path, right: Path) -> bool:
    return left.is_file() and left.read_bytes() == right.read_bytes()


def bundled(root: Path) -> list[str]:
    """What Flower puts into the bundle, below `root`, and pyproject.toml; sorted."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["flwr"]["app"]["fab-include"]
    found = {path for pattern in patterns for path in root.glob(pattern.removeprefix("/")) if path.is_file()}
    return sorted(path.relative_to(root).as_posix() for path in found | {root / "pyproject.toml"})
