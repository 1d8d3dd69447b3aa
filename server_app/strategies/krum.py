"""Krum and Multi-Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the replies closest to their neighbours.

    score_k = sum of the m - f - 2 smallest ||w_k - w_j||^2, j != k
    w_{t+1} = w_k of the smallest score (Krum), or the unweighted mean of the q smallest (Multi-Krum)

m replies, of which f may be malicious; ties go to the earlier reply. The proof needs m > 2f + 2. Distances cover the
parameters only; BatchNorm's statistics come from the chosen replies. Flower's Multi-Krum weights by numbers of
examples, which a malicious client can claim at will; FNBench sums all distances, so f has no effect there.
"""

from dataclasses import dataclass

import numpy as np

from config.parameters import parameter
from config.rules import at_least
from server_app.strategies.collecting import HeldReplies, HoldingStrategy, Rule, krum_scores


@dataclass(kw_only=True, eq=False)
class Krum(HoldingStrategy):
    """The reply with the smallest score.

    Attributes:
        num_malicious_nodes: f.
    """

    num_nodes_to_select = 1

    num_malicious_nodes: int = parameter(0, at_least(0))

    @property
    def least_replies(self) -> int:
        """With m replies, m - f - 2 must be at least 1, and q must not exceed the m - f honest replies."""
        return self.num_malicious_nodes + max(3, self.num_nodes_to_select)

    def rule(self, held: HeldReplies) -> Rule:
        scores = krum_scores(held.squared_distances(), np.arange(len(held)), self.num_malicious_nodes)
        chosen = np.sort(np.argsort(scores, kind="stable")[: self.num_nodes_to_select])
        return lambda block: block[chosen].mean(axis=0, dtype=np.float64)


@dataclass(kw_only=True, eq=False)
class MultiKrum(Krum):
    """The mean of the replies with the smallest scores.

    Attributes:
        num_nodes_to_select: q.
    """

    num_nodes_to_select: int = parameter(1, at_least(1))
