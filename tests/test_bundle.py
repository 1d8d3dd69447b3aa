"""What travels to every node: the code and presets, and nothing else."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from messages.fingerprint import code_fingerprint
from tests.forks import failed_forks

ROOT = Path(__file__).parents[1]


CODE = ("client_app", "config", "data", "learning", "messages", "methods", "models", "server_app", "simulation")


def bundled(app: Path, out: Path) -> set[str]:
    """Build an app's bundle and unpack it; returns the names of its files."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        bundle.extractall(out)
        return set(bundle.namelist())


def test_the_bundle_holds_exactly_the_app(tmp_path: Path) -> None:
    """Whatever the user keeps in custom/ comes on top."""
    names = bundled(ROOT, tmp_path)
    tracked = {
        path.relative_to(ROOT).as_posix()
        for package in CODE
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".toml", ".json")
    }
    loose = {"task.py", "README.md", "LICENSE", "pyproject.toml", "custom/__init__.py"}
    assert {name for name in names if not name.startswith("custom/")} | {"custom/__init__.py"} == (
        tracked | loose | {".info/CONTENT"}
    )


def test_files_of_one_s_own_travel_in_the_bundle_and_to_other_machines(tmp_path: Path) -> None:
    checkout, unpacked, elsewhere = tmp_path / "checkout", tmp_path / "bundle", tmp_path / "machine"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns("*.png", ".git", "tests", "__pycache__", "custom"))
    before = code_fingerprint(checkout)
    (checkout / "custom" / "deeper").mkdir(parents=True)
    shutil.copy(ROOT / "custom" / "__init__.py", checkout / "custom")
    for name in ("mine.py", "deeper/more.py", "notes.txt", "test_mine.py"):
        (checkout / "custom" / name).write_text("from methods.ce import CE as Mine\n", encoding="utf-8")
    names = bundled(checkout, unpacked)
    carried = {"custom/__init__.py", "custom/mine.py", "custom/deeper/more.py"}
    assert {name for name in names if name.startswith("custom/")} == carried
    assert code_fingerprint(unpacked) == code_fingerprint(checkout) != before

    script = (
        "import io, zipfile, sys\n"
        "from simulation.pinned_app import packed_code\n"
        f"zipfile.ZipFile(io.BytesIO(packed_code()[1])).extractall({str(elsewhere)!r})\n"
    )
    used = (
        "from config.run_config import RunConfig\n"
        "from methods import build_method\n"
        "print(type(build_method(RunConfig(method='custom.mine:Mine'))).__name__)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for folder, code in ((unpacked, script), (elsewhere, used)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "CE\n"


def test_the_fingerprint_changes_with_the_code(tmp_path: Path) -> None:
    (tmp_path / "client_app").mkdir()
    source = tmp_path / "client_app" / "a.py"
    source.write_text("x = 1\n")
    before = code_fingerprint(tmp_path)
    source.write_text("x = 2\n")
    assert code_fingerprint(tmp_path) != before
    source.rename(tmp_path / "client_app" / "b.py")
    assert code_fingerprint(tmp_path) != before


def test_packages_import_only_what_they_may() -> None:
    """data/ knows nothing of Flower and the other packages; client_app and server_app do not know each other, nor does
    what they share know them; task.py does without probe/, which nodes do not have.
    """
    for modules, forbidden in {
        "data.__main__": {"flwr", "torch", "config", "task", "client_app", "server_app"},
        "data.release, data.images.loading, data.partition.schemes, data.sample": {"flwr", "torch", "config", "task"},
        "deploy.__main__": {"flwr", "torch", "numpy", "PIL", "config", "task", "client_app", "server_app"},
    }.items():
        done = subprocess.run([sys.executable, "-c", _importing(modules, forbidden)], cwd=ROOT, timeout=600)
        assert done.returncode == 0, modules
    with_torch = {
        "task": {"flwr", "probe", "client_app", "server_app"},
        "learning.training, learning.evaluation, learning.pretrained": {"flwr", "ray", "client_app", "server_app"},
        "client_app.app": {"server_app", "ray", "matplotlib"},
        "server_app.app, methods.noisy_clients": {"client_app", "ray", "sklearn"},
    }
    assert not failed_forks({modules: _importing(modules, forbidden) for modules, forbidden in with_torch.items()})


def _importing(modules: str, forbidden: set[str]) -> str:
    return f"import sys, {modules}\nassert not {forbidden!r} & {{name.split('.')[0] for name in sys.modules}}"
