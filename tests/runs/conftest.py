"""A home folder of the test's own, commands as a shell would call them, and runs written by hand."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.__main__ import main
from tests.runs.folders import Said


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's, which is empty."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return home


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``python -m runs`` with these words."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["runs", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)

    return call
