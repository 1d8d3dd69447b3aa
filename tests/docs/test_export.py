"""The snippets of docs/export.md, on files as the command writes them."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.docs.pages import ROOT, module_of, run


def _module(path: str) -> Any:
    return importlib.import_module(module_of(path))


def test_the_pages_snippets_answer_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "photo.jpg")
    opened = _module("tests/runs/exported.py").opened_model()
    write = _module("runs/model/exporting.py").write_programs
    assert len(list(write(opened, tmp_path / "model.onnx", tmp_path / "model.pt2"))) == 2
    found = run(ROOT / "docs" / "export.md")
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first in opened.facts.class_names
    assert found["probabilities"].shape == (1, 3)
