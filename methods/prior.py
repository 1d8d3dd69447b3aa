"""How often each class is expected, for methods that keep a network from predicting one class for everything."""

import math

import torch
from torch import Tensor

from learning.method import Visit

PRIORS = ("uniform", "given")


def prior_of(kind: str, visit: Visit) -> Tensor:
    """The prior pi, (C,) float32: one of `PRIORS`, the second the shares of the classes among the given labels."""
    if kind == "uniform":
        return torch.full((visit.num_classes,), 1 / visit.num_classes, device=visit.given.device)
    return one_hot(visit.given, visit.num_classes).mean(dim=0)


def distance_from_prior(logs: Tensor, prior: Tensor) -> Tensor:
    """``sum_c pi_c log(pi_c / p_mean_c)``, a scalar, of (n, C) log probabilities with mean p p_mean, and (C,) pi."""
    log_mean = logs.logsumexp(dim=0) - math.log(len(logs))  # of p_mean: finite where that itself would be 0
    return (prior.xlogy(prior) - prior * log_mean).sum()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(n, C) float32 of (n,) int64; unlike PyTorch's it reads no label."""
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, labels[:, None], 1.0)
