"""Batches and visits made of given logits, so that a loss can be checked against numbers worked out by hand."""

from typing import Any

import torch
from torch import Tensor

from learning.method import Batch, View, Visit

# Two samples, three classes; ZB is a second view, a second network or a teacher.
Z = torch.tensor([[2.0, 0.5, -1.0], [0.1, 1.2, 0.3]], dtype=torch.float64)
ZB = torch.tensor([[1.0, 1.5, -0.5], [0.4, 0.2, 0.9]], dtype=torch.float64)
Y = torch.tensor([0, 2])


def batch_of(
    labels: Tensor,
    *networks: Tensor | list[Tensor],
    rows: Tensor | None = None,
    features: Tensor | None = None,
    inputs: Tensor | None = None,
) -> Batch:
    """A batch to which each network answered with the given logits, one tensor for one view or a list of several."""
    inputs = torch.zeros(len(labels), 3, 1, 1) if inputs is None else inputs
    answers = [[one] if isinstance(one, Tensor) else one for one in networks]
    views = [[View(inputs, logits, features) for logits in answer] for answer in answers]
    return Batch(torch.arange(len(labels)) if rows is None else rows, labels, views)


def visit_of(labels: Tensor, num_classes: int = 3, **values: Any) -> Visit:
    """A visit to a client that holds images with these labels."""
    values = {"generator": torch.Generator().manual_seed(0), **values}
    return Visit(labels, num_classes, **values)
