"""The README's lines that load a model, and the snippets of docs/using-the-model.md, on files as runs write them."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.docs.pages import ROOT, blocks, module_of, run

PAGE = ROOT / "docs" / "using-the-model.md"
NAMES = ("cat", "dog", "bird")


def _module(path: str) -> Any:
    return importlib.import_module(module_of(path))


def _opened(path: Path) -> Any:
    return _module("runs/model/opened.py").open_model(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_readme_s_lines_need_nothing_of_this_app(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module("tests/runs/models.py").write_model(home / "model.safetensors", NAMES, model="resnet50", image_size=48)
    monkeypatch.chdir(home)
    (lines,) = blocks(ROOT / "README.md")
    assert len([line for line in lines.splitlines() if line]) == 6
    imported = re.findall(r"^(?:import|from) (.*?)(?: import .*)?$", lines, re.MULTILINE)
    assert imported == ["json, torchvision", "safetensors"]
    found = run(ROOT / "README.md")
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(found["model"].eval()(image), _opened(home / "model.safetensors").model(image), atol=1e-5)


def test_the_page_s_snippets_answer_as_the_app_does(
    home: Path, tiny_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, made = home / "clothing1m-fl-runs", _module("tests/runs/models.py")
    names = _module("data/release.py").open_release(tiny_sample).class_names
    made.make_run(runs, tiny_sample, "my-run", model="resnet18", image_size=32, num_server_rounds=1)
    made.make_run(runs, tiny_sample, "pair", method="co-teaching", num_server_rounds=1)
    for name, network, size in (("tiny", "cnn", 16), ("vit", "timm:test_vit", 32)):
        (runs / name).mkdir()
        made.write_model(runs / name / "model.safetensors", names, model=network, image_size=size)
    (home / "my-release").symlink_to(tiny_sample)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.radial_gradient("L").convert("RGB").resize((60, 40)).save(home / "photo.jpg", exif=turned)
    capsys.readouterr()

    found = run(PAGE)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        "from torchvision.models import get_model",
        "network = get_model('resnet18', num_classes=14)",
    ]
    by_hand, by_app = printed[3], next(line for line in printed if line.startswith("photo.jpg: "))
    assert by_app == f"photo.jpg: {by_hand.rpartition(' ')[0]}, {by_hand.rpartition(' ')[2]}"
    assert found["predictions"][0].probabilities[0] == pytest.approx(_share(by_hand), abs=0.006)
    assert printed[-2].endswith("% of 40 images")
    assert printed[-1].startswith("the worst mistake: images/")
    # The last network that the page makes is timm's, and so on.
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(found["model"].eval()(image), _opened(runs / "vit" / "model.safetensors").model(image))
        zeros = torch.zeros(1, 3, 16, 16)
        of_pair = _opened(runs / "pair").model(zeros).softmax(dim=1)
        assert torch.allclose(found["probabilities"], of_pair, atol=1e-6)
        tiny = _opened(runs / "tiny" / "model.safetensors").model
        outside = found["cnn"](14)
        outside.load_state_dict(tiny.state_dict())
        assert torch.allclose(outside.eval()(zeros), tiny(zeros))


def _share(line: str) -> float:
    return float(line.rpartition(" ")[2].rstrip("%")) / 100
