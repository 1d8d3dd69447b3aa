"""Packages import downwards only, and importing one changes nothing elsewhere."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.forks import failed_forks
from tests.import_graph import LAYERS, OUTSIDE, ROOT, Arrow, arrows, imported, packages

ARROWS = arrows()
# Beyond the order of the layers: what a package must do without.
WITHOUT = {
    "data": {"flwr", "ray", *LAYERS},
    "deploy": {"flwr", "ray", "torch", *LAYERS} - {"data"},
    "config": {"flwr", "ray", "torch"},
    "models": {"flwr", "ray"},  # tests/client_app/test_imports.py: torchvision and timm when they build a network
    "task": {"flwr", "ray", "torchvision"},
    "learning": {"flwr", "ray", "simulation", "messages"},
    "messages": {"simulation", "torch"},
    "methods": {"ray", "simulation", "messages"},
    "simulation": {"client_app", "server_app"},
    "client_app": {"server_app", "ray", "sklearn", "matplotlib"},
    "server_app": {"client_app", "ray"},
}


def _said(wrong: Collection[Arrow]) -> str:
    return "\n".join(map(str, sorted(wrong)))


def test_every_package_has_a_layer() -> None:
    assert packages() == sorted(LAYERS)


def test_no_arrow_goes_up() -> None:
    """Nor can there be a circle: one would have to go up somewhere."""
    place = {package: number for number, package in enumerate(LAYERS)}
    wrong = [arrow for arrow in ARROWS if place.get(arrow.target, -1) > place[arrow.package]]
    assert not wrong, _said(wrong)


@pytest.mark.parametrize("package", LAYERS)
def test_packages_do_without(package: str) -> None:
    """None imports tests; all of them but probe and benchmarks have more to do without."""
    forbidden = (WITHOUT.get(package, set()) | OUTSIDE) - {package}
    wrong = [arrow for arrow in ARROWS if arrow.package == package and arrow.target in forbidden]
    assert not wrong, _said(wrong)


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import a.b, c\ndef f():\n    from d.e import g\nfrom . import h\nfrom .i import j\nif x:\n    import k as l\n"
    )
    assert sorted(imported(source)) == [(1, "a.b"), (1, "c"), (3, "d.e"), (7, "k")]


def test_an_arrow_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("import os\nimport client_app.app\n")
    assert [str(arrow) for arrow in arrows(tmp_path)] == [
        "data/a.py:1 imports os",
        "data/a.py:2 imports client_app.app",
    ]


def test_the_graph_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.import_graph"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert list(lines) == list(reversed(LAYERS))
    assert lines["data"] == ["-"]
    assert {"learning", "methods", "messages", "simulation"} <= {*lines["client_app"]}


def _importing(module: str) -> str:
    """Ray is not started, not even imported, and Flower's simulation stays as it is, also where it has been loaded."""
    return f"""
import sys
import {module}
assert "ray" not in sys.modules
for name in list(sys.modules):
    if name.split(".")[0] == {module.split(".")[0]!r}:
        del sys.modules[name]
import flwr.simulation.run_simulation
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend import raybackend
parts = {{**vars(vce_api), **vars(raybackend), **vars(raybackend.RayBackend)}}
import {module}
assert parts == {{**vars(vce_api), **vars(raybackend), **vars(raybackend.RayBackend)}}
assert "simulation.patches" not in sys.modules
"""


# Or the test would hold whatever happens.
THE_CLIENT_APP_ITSELF_CHANGES_IT = """
import flwr.simulation.run_simulation
from flwr.server.superlink.fleet.vce import vce_api
before = vce_api.add_messages_to_queue
import client_app.app
assert vce_api.add_messages_to_queue is not before
"""


def test_importing_a_package_changes_nothing() -> None:
    modules = ("client_app", "server_app", "methods", "methods.elr", "learning.training")
    scripts = {module: _importing(module) for module in modules}
    assert not failed_forks({**scripts, "client_app.app": THE_CLIENT_APP_ITSELF_CHANGES_IT})
