"""FedMedian (Yin et al., ICML 2018, arXiv 1803.01498, Option I): the median of each coordinate.

    w_{t+1}[j] = median_k w_k[j]

With an even number of replies, it is the mean of the two in the middle. Numbers of examples do not count. BatchNorm's
statistics are medians too, and lie between the clients' values, so a running variance stays positive.
"""

from dataclasses import dataclass

import numpy as np

from server_app.strategies.collecting import HeldReplies, HoldingStrategy, Rule


@dataclass(kw_only=True, eq=False)
class FedMedian(HoldingStrategy):
    """Coordinate-wise median."""

    by_number = True

    def rule(self, held: HeldReplies) -> Rule:
        return lambda block: np.median(block, axis=0)
