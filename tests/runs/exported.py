"""Models without a run that trained them, and Python without this app."""

import subprocess
import sys
from pathlib import Path

import torch

from config.run_config import RunConfig
from config.stems import stem_of
from learning.model_facts import ModelFacts
from runs.model.opened import OpenedModel
from task import Compute, build_model

NAMES = ("cats", "dogs", "eels")
ALONE = (
    "import importlib.util as util\n"
    "assert not any(util.find_spec(name) for name in ('task', 'learning', 'runs', 'config'))\n"
)


def opened_model(
    name: str = "cnn",
    side: int = 16,
    networks: int = 1,
    class_names: tuple[str, ...] = NAMES,
    path: Path = Path("/runs/run/model.safetensors"),
    normalization: str = "clothing1m",
    server_round: int = 2,
) -> OpenedModel:
    """One with random weights, BatchNorm's statistics among them, on the CPU."""
    config = RunConfig(model=name, image_size=side, normalization=normalization)
    model = build_model(name, len(class_names), 1, networks=networks, image_size=side, stem=stem_of(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.01)
    facts = ModelFacts.of(config, class_names, model, server_round)
    return OpenedModel(model.eval(), facts, path, Compute(torch.device("cpu"), torch.float32))


def run_alone(code: str, folder: Path) -> str:
    """What Python prints that finds installed packages, and nothing of this app."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE + code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
