"""FedDiv's predictive consistency sampler: which images a client trains on, by what two networks predict for them.

    F(x) = f(x; local) - xi log p_k,   x is kept if argmax f(x; global) = argmax F(x)
    p_k <- m p_k + (1 - m) mean p(x; local)

f are logits, p_k is the running mean of the local network's predictions, (C,). Subtracting it takes the preference for
classes that the client predicts often out of a prediction; an image whose class this changes was predicted for that
preference alone.
"""

import torch
from torch import Tensor

LEAST_SHARE = 1e-6  # of a class in p_k: one that is never predicted must not win everywhere


def uniform_mean(num_classes: int, device: torch.device) -> Tensor:
    """The first p_k, (C,) float32."""
    return torch.full((num_classes,), 1 / num_classes, device=device)


def updated_mean(mean: Tensor, logits: Tensor, momentum: float) -> Tensor:
    """The next p_k, (C,), after (n, C) logits of all images; one that is not finite leaves it as it was."""
    found = logits.softmax(dim=1).mean(dim=0)
    return torch.where(found.isfinite().all(), momentum * mean + (1 - momentum) * found, mean)


def consistent(predicted: Tensor, logits: Tensor, mean: Tensor, strength: float) -> Tensor:
    """Which images keep their predicted class without the client's preference: (n,) bool.

    Args:
        predicted: (n,) int64, by the global model.
        logits: (n, C), of the local one.
        mean: p_k, (C,).
        strength: xi.
    """
    debiased = logits - strength * mean.clamp(min=LEAST_SHARE).log()
    return debiased.argmax(dim=1) == predicted


def first_with_two(*choices: Tensor) -> Tensor:
    """The first of these sets of rows, each (m,) int64, that has two images or more, and else the last.

    BatchNorm refuses a batch of one on images that leave one pixel.
    """
    return next((rows for rows in choices[:-1] if len(rows) > 1), choices[-1])
