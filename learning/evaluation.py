"""Quality of a model on a set of images, measured alike on server and clients."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.images.pixels import Pixels, StoredPixels
from data.normalization import Normalization
from learning.images import Images
from task import Compute, to_input

EVALUATION_BATCH = 256  # at most, and the notebook's: GPUs want large batches
# Pixels of an evaluation batch on a CPU, whose caches hold a layer of that many: a ResNet-50 evaluates 90 images of 224
# pixels a second in batches of 8, 36 in batches of 256.
EVALUATION_PIXELS = 400_000


@dataclass(frozen=True)
class Evaluation:
    """Quality of a model on one set of images.

    Attributes:
        loss: Mean cross-entropy, in nats.
        confusion: (classes, classes) int64 counts; rows are true classes, columns are predictions.
    """

    loss: float
    confusion: np.ndarray

    @property
    def num_examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, 0 to 1."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def recall(self) -> np.ndarray:
        """(classes,) float64: share of each true class that is found; NaN for a class with no image."""
        with np.errstate(invalid="ignore"):
            recall: np.ndarray = np.diag(self.confusion) / self.confusion.sum(axis=1)
        return recall

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images or predictions: 2 hits / (images + predictions)."""
        counted = self.confusion.sum(axis=0) + self.confusion.sum(axis=1)
        return float(np.mean(2 * np.diag(self.confusion)[counted > 0] / counted[counted > 0]))


class Tally:
    """Adds up answers, batch by batch, to an `Evaluation`."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._confusion: Tensor | None = None

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """Count a batch: (b, classes) float32 and (b,) int64, on the device."""
        classes = logits.shape[1]
        self._loss += nn.functional.cross_entropy(logits, truth, reduction="sum")
        cells = truth * classes + logits.argmax(dim=1)
        if self._confusion is None:
            self._confusion = torch.zeros((classes, classes), dtype=torch.int64, device=logits.device)
        self._confusion.view(-1).scatter_add_(0, cells, torch.ones_like(cells))  # `bincount` would wait for a GPU

    def evaluation(self) -> Evaluation:
        """Of all batches.

        Raises:
            ValueError: There was none.
        """
        if self._confusion is None:
            raise ValueError("evaluate: there are no images")
        confusion = self._confusion.cpu().numpy()
        return Evaluation(float(self._loss) / int(confusion.sum()), confusion)


def evaluate(
    model: nn.Module,
    images: Pixels | np.ndarray,
    labels: np.ndarray,
    compute: Compute,
    normalization: Normalization | str,
) -> Evaluation:
    """Evaluate in inference mode, and in float32 whatever the run's precision.

    Rounding to 8 bits, as bf16 does, moves images that lie between two classes from one to the other.

    Args:
        model: On `compute.device`; left in evaluation mode.
        images: (n, height, width, 3) uint8.
        labels: (n,) integers below the model's number of classes.
        compute: The device; without autocast, as `Compute.dtype` does not count here.
        normalization: Mean and deviation of each channel, or a key of `data.normalization.NORMALIZATIONS`.
    """
    tally = Tally(compute.device)
    for logits, truth in answers(model, images, labels, compute, normalization):
        tally.add(logits, truth)
    return tally.evaluation()


@torch.inference_mode()
def answers(
    model: nn.Module,
    images: Pixels | np.ndarray,
    labels: np.ndarray,
    compute: Compute,
    normalization: Normalization | str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch, logits (b, classes) float32 and labels (b,) int64, on the device; see `evaluate`."""
    model.eval()
    pixels = StoredPixels(images) if isinstance(images, np.ndarray) else images
    for batch, truth in _batches(pixels, labels, compute.device):
        truth = truth.to(compute.device, non_blocking=True)
        yield model(to_input(batch, compute, normalization)).float(), truth


def evaluation_batch(image_size: int, device: torch.device) -> int:
    """How many images at once are evaluated fastest; with BatchNorm's running statistics none affects another."""
    fits = EVALUATION_PIXELS // image_size**2 if device.type == "cpu" else EVALUATION_BATCH
    return max(1, min(EVALUATION_BATCH, fits))


def _batches(pixels: Pixels, labels: np.ndarray, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    size = evaluation_batch(pixels.shape[1], device)
    truth = torch.from_numpy(labels.astype(np.int64)).split(size)  # type: ignore[no-untyped-call]
    return zip(Images(pixels, device).in_order(size), truth, strict=True)
