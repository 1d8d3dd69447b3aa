"""What several files with whole runs start."""

from collections.abc import Iterator

import pytest

from tests.e2e.superlink import SuperLink


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """A simulating SuperLink per test file, started in a folder that holds no app."""
    link = SuperLink(tmp_path_factory.mktemp("flwr"), tmp_path_factory.mktemp("elsewhere"))
    yield link
    link.stop()
