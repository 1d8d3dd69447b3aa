"""A virtual environment for each foreign framework, made once and kept.

It falls back on the running environment's packages, so that all contenders compute with one PyTorch; pip finds it there
and installs what is missing. That is impossible for a framework that needs a newer Python than the running one: the
user names an interpreter for it, and it gets its own copy of the same PyTorch, which takes some 5 GB.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SHARED = ("torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Framework:
    """A package from the registry.

    Attributes:
        python: The oldest Python that it runs on.
    """

    python: tuple[int, int] = (3, 11)


FRAMEWORKS = {"pfl": Framework(), "fluke": Framework(), "blazefl": Framework(python=(3, 12))}


def available(name: str, interpreters: Mapping[str, str]) -> bool:
    """Whether there is a Python for a framework: the running one, or one of its own in `interpreters`."""
    return name in interpreters or sys.version_info[:2] >= FRAMEWORKS[name].python


def python_of(name: str, folder: Path, interpreters: Mapping[str, str]) -> Path:
    """The Python of a framework's environment below `folder`, which is made unless it is there and up to date.

    Args:
        name: Of `FRAMEWORKS`.
        folder: Of all environments.
        interpreters: Pythons of the frameworks that are not to use the running one.

    Raises:
        ValueError: The running Python is too old for it.
        RuntimeError: An installation failed.
    """
    if not available(name, interpreters):
        needed = ".".join(map(str, FRAMEWORKS[name].python))
        raise ValueError(f"'{name}' needs Python {needed}; give one with --interpreter {name}=PATH.")
    requirements = (HERE / f"requirements-{name}.txt").read_text(encoding="utf-8")
    shared = sysconfig.get_path("purelib")
    if name in interpreters:
        requirements += "".join(f"{package}=={version(package).split('+')[0]}\n" for package in SHARED)
    environment = folder / name
    python = environment / "bin" / "python"
    made_of = f"{interpreters.get(name, shared)}\n{requirements}"
    mark = environment / "made-of.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8") == made_of:
        return python
    print(f"installing {name} into {environment}", file=sys.stderr, flush=True)
    _run(interpreters.get(name, sys.executable), "-m", "venv", "--clear", str(environment))
    if name not in interpreters:
        (Path(_purelib(python)) / "zz-shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    listed = environment / "requirements.txt"
    listed.write_text(requirements, encoding="utf-8")
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(listed))
    mark.write_text(made_of, encoding="utf-8")
    return python


def _purelib(python: Path) -> str:
    return _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
