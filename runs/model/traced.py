"""A trained model as a program of PyTorch's that needs nothing of this app: pixels in, logits and probabilities out."""

import contextlib
import io
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.text import one_line
from learning.model_facts import ModelFacts
from runs.errors import RunsError
from runs.model.opened import OpenedModel

INPUT, OUTPUTS = "images", ("logits", "probabilities")
FACTS = "facts.json"  # in a file of torch.export


class Classifier(nn.Module):
    """A network with the normalisation that it was trained with.

    It takes pixels as image libraries give them. Arrays that were scaled or normalised already are of another type, and
    so refused; a network that takes normalised numbers would answer them with wrong classes.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, facts: ModelFacts) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(facts.mean))
        self.register_buffer("deviation", torch.tensor(facts.deviation))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, side, side, 3) uint8 to logits and probabilities, (n, classes) float32 each."""
        inputs = images.float().div(255).sub(self.mean).div(self.deviation)  # in the order of `task.to_input`
        logits = self.network(inputs.permute(0, 3, 1, 2)).float()
        return logits, logits.softmax(dim=1)


def traced(opened: OpenedModel) -> Any:
    """The model as a `torch.export.ExportedProgram` on the CPU, for any number of images at once.

    It names no file of this machine. The opened model moves to the CPU.

    Raises:
        RunsError: PyTorch cannot trace it.
    """
    model = Classifier(opened.model.cpu(), opened.facts).eval()
    side = opened.facts.image_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with quietly(), refusing(opened.facts, "trace"):
        program: Any = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def torch_export_file(program: Any, facts: ModelFacts) -> bytes:
    """The bytes of a file for ``torch.export.load``, which has `described` as an extra file named `FACTS`."""
    with tempfile.TemporaryDirectory() as folder, quietly(), refusing(facts, "save"):
        path = Path(folder) / "model.pt2"
        texts = json.dumps(described(facts), ensure_ascii=False, indent=1)
        torch.export.save(program, path, extra_files={FACTS: texts})
        return path.read_bytes()


def described(facts: ModelFacts) -> dict[str, str]:
    """What a file says of the model in it, as texts; lists as JSON."""
    known = facts.to_metadata()
    side, logits = facts.image_size, "logits"
    if facts.networks > 1:
        logits = f"logits (logarithms of the mean probabilities of {facts.networks} networks)"
    return {
        **{name: text for name, text in known.items() if name not in ("build", "further-heads", "resize")},
        "input": f"{INPUT}: uint8 (batch, {side}, {side}, 3), RGB; both sides of a photo resized, bilinear and"
        " antialiased; the model normalises them itself",
        "output": f"{logits} and probabilities: float32 (batch, classes)",
    }


def trials(side: int) -> np.ndarray:
    """Three images to compare two forms of a model on, (3, side, side, 3) uint8: noise, a ramp, and black."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, side).astype(np.uint8)[None, :, None], (side, side, 3))
    return np.stack([noise, ramp, np.zeros_like(noise)])


@torch.inference_mode()
def logits_of(opened: OpenedModel, images: np.ndarray) -> np.ndarray:
    """(n, classes) float32 of the model itself, on the device where it is."""
    model = Classifier(opened.model, opened.facts)
    device = next(opened.model.parameters()).device
    logits, _ = model.to(device).eval()(torch.from_numpy(images).to(device))
    found: np.ndarray = logits.cpu().numpy()
    return found


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what PyTorch's exporters print, warn of and log away from the user, for whom none of it is meant."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def refusing(facts: ModelFacts, verb: str) -> Iterator[None]:
    """Make one sentence of whatever PyTorch's exporters raise.

    Raises:
        RunsError: For any exception but those of memory and of the disk.
    """
    try:
        yield
    except (OSError, MemoryError, RunsError):
        raise
    except Exception as error:
        said = one_line(str(error) or type(error).__name__).rstrip(".")
        raise RunsError(f"PyTorch {torch.__version__} cannot {verb} {facts.architecture}: {said}.") from None


def weights_gib(model: nn.Module) -> float:
    return math.fsum(value.nbytes for value in model.state_dict().values()) / 2**30
