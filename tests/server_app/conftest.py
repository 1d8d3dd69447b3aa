"""A finished run that tests of resuming change in their own ways."""

import shutil
from pathlib import Path

import pytest

from tests.fakes import run_in_process

ROUNDS = 4


@pytest.fixture(scope="session")
def finished_run(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four rounds of the smallest network; nothing may write to it."""
    return run_in_process(
        tmp_path_factory.mktemp("finished"), data_dir=str(tiny_sample), model="cnn", image_size=16,
        num_server_rounds=ROUNDS,
    )  # fmt: skip


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished_run, tmp_path / "run")
