"""FedDecorr (Shi et al., ICLR 2023, arXiv 2210.00226): cross-entropy with decorrelated features.

Heterogeneous data lets features collapse into few directions. In a batch of n, the features X (n, d) that enter the
classifier are z-scored by column, with variances over n - 1 and 1e-8 added to them; then

    loss = CE + zeta L,    R = X^T X / (n - 1),    L = ||R||_F^2 / d^2                       form = "paper"
                           G = X^T X,              L = mean of the squared G_ij, i != j, / n   form = "fnbench"

FNBench's form is not divided by n before it is squared, so that it grows with the batch: for the same features it is
about (n - 1)^2 / n times the mean R_ij^2, and a zeta suits only one batch size. FNBench still uses the paper's 0.1. A
batch of one image has no correlation: L = 0.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval, one_of
from learning.method import Batch, Method, Visit

FORMS = ("paper", "fnbench")


@dataclass(frozen=True)
class FedDecorr(Method):
    """Cross-entropy with decorrelated features.

    Attributes:
        zeta: Weight of L.
        form: Which L, one of `FORMS`.
    """

    features = True

    zeta: float = parameter(0.1, interval(0))
    form: str = parameter("paper", one_of(*FORMS))

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        features = batch.views[0][0].features
        assert features is not None
        return cross_entropy(batch.logits, batch.labels) + self.zeta * correlation(features, self.form)


def correlation(features: Tensor, form: str) -> Tensor:
    """L of one batch.

    Args:
        features: (n, d), of any floating-point type.
        form: One of `FORMS`.

    Returns:
        A scalar.
    """
    n, d = features.shape
    if n == 1:
        return features.new_zeros(())
    scored = (features - features.mean(dim=0)) / (features.var(dim=0) + 1e-8).sqrt()
    # ||X^T X||_F = ||X X^T||_F: a batch of 64 needs no matrix of 2048 x 2048.
    products = scored @ scored.T if n < d else scored.T @ scored
    squares = products.square().sum()
    if form == "paper":
        return squares / ((n - 1) * d) ** 2
    diagonal = scored.square().sum(dim=0).square().sum()
    return (squares - diagonal) / (max(d * (d - 1), 1) * n)
