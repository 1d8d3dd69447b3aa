"""``compose.yaml`` and the image, as far as they can be checked without a container engine."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deploy.folders import requirements

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services(written: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((written / "compose.yaml").read_text())
    assert loaded["name"] == "sites"
    found = loaded["services"]
    assert isinstance(found, dict)
    return found


def test_compose_is_valid_by_its_specification(written: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(written / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_service_for_each_machine(services: dict[str, Any]) -> None:
    assert list(services) == ["superlink", "gateway", "node-1", "node-2"]


def test_services_run_the_scripts_of_the_folders_they_mount(written: Path, services: dict[str, Any]) -> None:
    """Scripts whose flags test_scripts.py checks with Flower's parsers; there are no others in the file."""
    for name, service in services.items():
        host, _, inside = service["volumes"][0].partition(":")
        (script,) = service["entrypoint"]
        assert script.startswith(f"{inside}/")
        path = written / host / script.removeprefix(f"{inside}/")
        assert path.stat().st_mode & 0o100, name
        assert service["restart"] == "unless-stopped"
        assert service["user"] == "${DEPLOY_USER:-1000:1000}"
    assert {name: service["command"] for name, service in services.items()} == {
        "superlink": ["--host", "0.0.0.0"], "gateway": ["superlink:8443"], "node-1": ["/data"], "node-2": ["/data"],
    }  # fmt: skip


def test_data_is_mounted_read_only_where_the_node_looks_for_it(services: dict[str, Any]) -> None:
    assert services["node-2"]["volumes"][1] == "${DATA_NODE_2:-./node-2/data}:/data:ro"
    assert services["superlink"]["volumes"][1] == "${DATA_SUPERLINK:-./superlink/data}:/data:ro"


def test_only_the_gateway_is_reached_from_outside(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"superlink": ["127.0.0.1:8444:8443"], "gateway": ["8443:8443"]}


def test_images_are_of_the_installed_flower(written: Path, services: dict[str, Any]) -> None:
    dockerfile = (written / "image" / "Dockerfile").read_text()
    assert f"FROM flwr/${{BASE}}:{version('flwr')}-py3.13-ubuntu24.04\n" in dockerfile
    bases = {name: service["build"]["args"]["BASE"] for name, service in services.items() if "build" in service}
    assert bases == {"superlink": "superlink", "node-1": "supernode", "node-2": "supernode"}
    assert {services[name]["image"] for name in ("node-1", "node-2")} == {f"sites-supernode:{version('flwr')}"}


def test_the_image_installs_what_the_app_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = requirements(version("flwr")).splitlines()
    found = {Requirement(line).name: Requirement(line) for line in lines}
    wanted = {Requirement(line).name: Requirement(line) for line in project["dependencies"]}
    assert set(found) == set(wanted)
    assert str(found.pop("flwr")) == f"flwr=={version('flwr')}"
    assert wanted.pop("flwr").specifier.contains(version("flwr"))
    assert found == wanted
