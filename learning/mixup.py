"""MixUp (Zhang et al., ICLR 2018, arXiv 1710.09412): images mixed in pairs, and what is believed of them likewise.

    x~_i = l x_i + (1 - l) x_j,    t~_i = l t_i + (1 - l) t_j,    l ~ Beta(a, a),    j random

As in the authors' code, one l is drawn for a whole batch, and the partners j are a permutation of it, so that an image
may meet itself. Small a leaves most batches nearly as they are, a = 1 draws l uniformly. Everything is drawn on the CPU
and sent ahead: a step does not wait.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learning.batches import sent


@dataclass(frozen=True)
class Mix:
    """How one batch of n is mixed; both on the visit's device.

    Attributes:
        share: () float32, l.
        partners: (n,) int64, j of each i.
    """

    share: Tensor
    partners: Tensor

    def of(self, values: Tensor, first: int | None = None) -> Tensor:
        """Inputs or soft labels, mixed with those of their partners.

        Args:
            values: (n, ...) floating-point, of the whole batch.
            first: Only so many are wanted, though their partners are any; None: all.

        Returns:
            (first, ...), of the type and memory layout of `values`, which l = 1 leaves as they are.
        """
        own, partners = values[:first], values[self.partners[:first]]
        return torch.lerp(own, partners, (1 - self.share).to(values.dtype))

    def mean(self, of_own: Tensor, of_partners: Tensor) -> Tensor:
        """``l of_own + (1 - l) of_partners``, for two losses that are linear in the label."""
        return self.share * of_own + (1 - self.share) * of_partners


def draw_mix(
    count: int, alpha: float, generator: torch.Generator, device: torch.device, *, mostly_own: bool = False
) -> Mix:
    """Draw how to mix a batch.

    Args:
        count: n.
        alpha: a, above 0.
        generator: On the CPU.
        device: Where the batch is.
        mostly_own: Whether the larger of l and 1 - l is taken, so that each image keeps at least half of itself.
    """
    share = beta(alpha, generator)
    if mostly_own:
        share = torch.maximum(share, 1 - share)
    partners = torch.randperm(count, generator=generator)
    return Mix(sent(share.float(), device), sent(partners, device))


def beta(alpha: float, generator: torch.Generator) -> Tensor:
    """One draw of Beta(alpha, alpha), () float64 on the CPU.

    It is the share of one of two draws of Gamma(alpha), whose logarithms are those of Gamma(alpha + 1) and a uniform
    draw to the power 1 / alpha: for small alpha the draws themselves would both be 0.
    """
    shapes = torch.full((2,), alpha + 1, dtype=torch.float64)
    uniform = 1 - torch.rand(2, dtype=torch.float64, generator=generator)  # above 0
    logs = torch._standard_gamma(shapes, generator=generator).log() + uniform.log() / alpha
    return (logs[0] - logs[1]).sigmoid()
