"""What travels to every node: the code and presets, and nothing else."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from messages.fingerprint import code_fingerprint
from tests.forks import failed_forks

ROOT = Path(__file__).parents[1]


def test_the_bundle_holds_exactly_the_app(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as bundle:
        names = set(bundle.namelist())
        bundle.extractall(tmp_path)
    tracked = {
        path.relative_to(ROOT).as_posix()
        for package in ("client_app", "config", "data", "learning", "messages", "methods", "server_app", "simulation")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".toml", ".json")
    }
    loose = {"task.py", "README.md", "LICENSE", "pyproject.toml"}
    assert names == tracked | loose | {".info/CONTENT"}
    assert code_fingerprint(tmp_path) == code_fingerprint(ROOT)


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
        "deploy.__main__": {"flwr", "torch", "config", "task", "data", "client_app", "server_app"},
    }.items():
        done = subprocess.run([sys.executable, "-c", _importing(modules, forbidden)], cwd=ROOT, timeout=120)
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
