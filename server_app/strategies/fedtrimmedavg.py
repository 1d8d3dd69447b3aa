"""FedTrimmedAvg (Yin et al., ICML 2018, arXiv 1803.01498, Option II): a mean without the extremes.

    w_{t+1}[j] = mean of w_k[j] without the b largest and the b smallest,    b = floor(beta m) of m replies

Numbers of examples do not count. FNBench's method of this name drops whole clients instead of coordinates.
"""

from dataclasses import dataclass

import numpy as np

from config.parameters import parameter
from config.rules import interval
from server_app.strategies.collecting import HeldReplies, HoldingStrategy, Rule


@dataclass(kw_only=True, eq=False)
class FedTrimmedAvg(HoldingStrategy):
    """Coordinate-wise trimmed mean.

    Attributes:
        beta: Share of the replies dropped at each end.
    """

    by_number = True

    beta: float = parameter(0.2, interval(0, 0.5, open_high=True))

    def rule(self, held: HeldReplies) -> Rule:
        dropped = int(self.beta * len(held) + 1e-9)  # 0.29 * 100 is 28.999999999999996
        kept = slice(dropped, len(held) - dropped)
        return lambda block: np.sort(block, axis=0)[kept].mean(axis=0, dtype=np.float64)
