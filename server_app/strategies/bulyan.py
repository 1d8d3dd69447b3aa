"""Bulyan (El Mhamdi et al., ICML 2018, arXiv 1802.07927): Krum, then a trimmed mean around the median.

    select: theta = m - 2f times, Krum's choice among the replies not chosen yet
    w_{t+1}[j] = mean of the beta = theta - 2f values of the selected that are closest to their median

m replies, of which f may be malicious; m >= 4f + 3. Selection uses the parameters only; the second step also covers
BatchNorm's statistics. Flower's class takes the theta best of one set of scores instead of scoring anew each time.
"""

from dataclasses import dataclass

import numpy as np

from config.parameters import parameter
from config.rules import at_least
from server_app.strategies.collecting import HeldReplies, HoldingStrategy, Rule, krum_scores


@dataclass(kw_only=True, eq=False)
class Bulyan(HoldingStrategy):
    """Krum's selection and a mean around the median.

    Attributes:
        num_malicious_nodes: f.
    """

    num_malicious_nodes: int = parameter(0, at_least(0))

    @property
    def least_replies(self) -> int:
        return 4 * self.num_malicious_nodes + 3

    def rule(self, held: HeldReplies) -> Rule:
        theta = len(held) - 2 * self.num_malicious_nodes
        beta = theta - 2 * self.num_malicious_nodes
        distances = held.squared_distances()
        left = np.arange(len(held))
        for _ in range(theta):
            scores = krum_scores(distances, left, self.num_malicious_nodes)
            left = np.delete(left, scores.argmin())
        selected = np.setdiff1d(np.arange(len(held)), left)

        def around_the_median(block: np.ndarray) -> np.ndarray:
            values = np.sort(block[selected], axis=0)  # of equally close values the smaller, whoever sent it
            order = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0, kind="stable")
            mean: np.ndarray = np.take_along_axis(values, order[:beta], axis=0).mean(axis=0, dtype=np.float64)
            return mean

        return around_the_median
