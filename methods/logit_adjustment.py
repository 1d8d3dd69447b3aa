"""Logit adjustment for classes of unequal size (Menon et al., ICLR 2021, arXiv 2007.07314), as FedNoRo uses it.

    LA = CE(z + tau log pi, y),    pi_c = share of class c among the labels that the client was given

The network learns logits z as if all classes were equally frequent at every client. A class that a client lacks has
pi_c = 0; FedNoRo's code adds -inf to its logit, here pi_c is at least 1e-8, so that all numbers are finite.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SMALLEST_SHARE = 1e-8  # below that of one image in ten million


def shares(labels: Tensor, num_classes: int) -> Tensor:
    """pi: (C,) float32, which add up to 1; from labels (n,) int64, on their device and without waiting for it."""
    counts = torch.zeros(num_classes, device=labels.device)
    counts.scatter_add_(0, labels, torch.ones(len(labels), device=labels.device))
    return counts / len(labels)


def log_prior(labels: Tensor, num_classes: int) -> Tensor:
    """The logarithm of `shares`: (C,) float32, finite."""
    return shares(labels, num_classes).clamp(min=SMALLEST_SHARE).log()


def adjusted_cross_entropy(logits: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
    """LA of logits (batch, C) and labels (batch,), given tau log pi (C,): a scalar, the mean over the batch."""
    return cross_entropy(logits + prior, labels)
