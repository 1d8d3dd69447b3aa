"""A deployment of two nodes, written once per test session, in a folder whose path no shell may split."""

import shutil
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

import pytest

from deploy.folders import init
from deploy.settings import Deployment

DEPLOYMENT = Deployment(
    name="sites",
    host="fl.example.org",
    port=8443,
    also=(ip_address("10.0.0.5"), "fl"),
    nodes=("node-1", "node-2"),
    flwr=version("flwr"),
)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: tests must not change it."""
    folder = tmp_path_factory.mktemp("deploy") / "it's a $HOME of keys"
    init(folder, DEPLOYMENT, days=730)
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(written, tmp_path / "a copy of keys"))
