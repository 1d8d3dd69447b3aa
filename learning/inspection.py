"""What a model makes of all images that a client trains on, without training on them: does it agree with their labels?

Nothing is drawn and the model stays as it is, so training is bit for bit what it would be without. A client remembers
each image's margin, summed over its visits: labels that the models of many rounds doubt are probably wrong (Pleiss et
al. 2020, arXiv 2001.10528, whose margins are those of training steps). It also remembers the predictions: how many of
them change from visit to visit tells when models begin to memorise wrong labels (Yuan, Feng and Liu 2024, arXiv
2502.07551).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learning.evaluation import evaluation_batch
from learning.inference import Inference, evaluating
from learning.schema import LARGEST


@dataclass(frozen=True)
class Look:
    """A model's answers on n images, on the CPU.

    Attributes:
        loss: Mean cross-entropy with the given labels, in nats; see `finite`.
        agreement: Share of the images whose given label is predicted.
        margins: (n,) float32, the logit of the given label minus the largest other one.
        predicted: (n,) int16 classes.
        confidence: (n,) float32, their probabilities.
    """

    loss: float
    agreement: float
    margins: Tensor
    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Inspected:
    """What a client remembers of the models that it received, n images each.

    Attributes:
        margins: (n,) float32, sums over `visits`.
        visits: How many models they come from.
        predicted: (n,) int16, by the last one.
        confidence: (n,) float32, its probabilities for these.
    """

    margins: Tensor
    visits: int
    predicted: Tensor
    confidence: Tensor


@torch.no_grad()
def look(model: nn.Module, inference: Inference, given: Tensor) -> Look:
    """Apply a model to all images, in evaluation mode and in float32, as `learning.evaluation` does.

    Args:
        model: On the device; of several networks, the mean of their probabilities counts, whose logarithms serve as
            logits. Its mode is restored.
        inference: The images, or their features if `model` is made of heads.
        given: (n,) int64 labels.
    """
    device = inference.compute.device
    size = evaluation_batch(inference.image_size, device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(model):
        labels = given.to(device).split(size)  # type: ignore[no-untyped-call]
        for batch, truth in zip(inference.images.in_order(size), labels, strict=True):
            logits = model(*inference.inputs(batch)).float()
            loss += nn.functional.cross_entropy(logits, truth, reduction="sum")
            confidence, predicted = logits.softmax(dim=1).max(dim=1)
            parts.append((margins_of(logits, truth), predicted, confidence.nan_to_num(0)))
    margins, predicted, confidence = (torch.cat(one).cpu() for one in zip(*parts, strict=True))
    agreement = float((predicted == given.cpu()).double().mean())
    return Look(finite(float(loss) / len(given)), agreement, margins, predicted.short(), confidence)


def margins_of(logits: Tensor, given: Tensor) -> Tensor:
    """(n,) float32: how far the logit of the given label is above the largest other one; negative if it is below.

    Args:
        logits: (n, C) float32.
        given: (n,) int64.
    """
    rows = given[:, None]
    others = logits.scatter(1, rows, -torch.inf).amax(dim=1)
    return (logits.gather(1, rows)[:, 0] - others).nan_to_num(0, LARGEST, -LARGEST)


def share_changed(seen: Look, earlier: Inspected) -> float:
    """Share of the images of which the model predicts another class than the one before it did."""
    return float((seen.predicted != earlier.predicted).double().mean())


def remember(seen: Look, earlier: Inspected | None) -> Inspected:
    """What a client keeps once it has looked at the model that it received; `earlier` is None at its first visit."""
    margins, visits = (seen.margins, 1) if earlier is None else (earlier.margins + seen.margins, earlier.visits + 1)
    return Inspected(margins, visits, seen.predicted, seen.confidence)


def finite(loss: float) -> float:
    """`loss`, or if it is NaN or infinite, the largest number of a message: it must not cost a client its visit."""
    return loss if loss <= LARGEST else LARGEST
