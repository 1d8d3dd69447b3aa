"""FedDecorr (Shi et al., ICLR 2023, arXiv 2210.00226): cross-entropy with decorrelated features.

Heterogeneous data lets features collapse into few directions. In a batch of n, the features X (n, d) that enter the
classifier are z-scored by column, with variances over n - 1 and 1e-8 added to them; then

    loss = CE + zeta L,    G = X^T X,              L = mean of the squared G_ij, i != j, / n   form = "authors"
                           R = X^T X / (n - 1),    L = ||R||_F^2 / d^2                       form = "paper"

The first is the authors' own code, which FNBench took over, with its zeta of 0.1; the second is their equation. The
code does not divide by n - 1 before it squares, so that L grows with the batch: it is (n - 1)^2 / n times the mean
R_ij^2, 30 times for batches of 32 and 62 for 64. At the same zeta its gradient is as many times stronger, and a zeta
suits one batch size. A batch of one image has no correlation: L = 0.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval, one_of
from learning.method import Batch, Method, Visit

FORMS = ("authors", "paper")


@dataclass(frozen=True)
class FedDecorr(Method):
    """Cross-entropy with decorrelated features.

    Attributes:
        zeta: Weight of L.
        form: Which L, one of `FORMS`.
    """

    features = True

    zeta: float = parameter(0.1, interval(0))
    form: str = parameter("authors", one_of(*FORMS))

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
