"""Whether the clients of a federation fall into two groups by one number each, or are alike.

A mixture of two Gaussians always finds two groups, also where all clients are alike and differ only by chance, as with
any IID split of Clothing1M. Here the higher one counts only if it stands out, by the logarithms x_k of the numbers,
since these differ by factors:

* two Gaussians explain x better than one: ``BIC_1 - BIC_2 > EVIDENCE / K``, where
  ``BIC = p log K - 2 log likelihood``, p = 5 and 2. One Gaussian measures the spread that clients have anyway, whatever
  it comes from. The fewer they are, the more chance gains by two; with this limit about one federation of 20 accuses
  somebody if alike clients are 5 to 20, and hardly any of 40;
* a gap is between them: ``(m_2 - m_1) / sqrt((v_1 + v_2) / 2) > APART`` (Ashman et al., AJ 1994, who find two groups
  clearly separate from 2). Without it, the tail of a skewed distribution would be a second group;
* their means differ by a factor of at least ``1 + least_gap``;
* at least `FEWEST_LOWER` of all clients are in the lower one, and two: otherwise one client with a very low number,
  which it may have made up, would have all others accused;
* it is no matter of time. Clients report in different rounds, from models that are trained more and more. Between
  clients of the same rounds, the groups must differ by at least half as much as overall.

Variances have a floor of `FLOOR` of the total one, so that two clients which happen to be close are no group.
`python -m tests.methods.test_two_groups` prints how often this accuses anybody of clients that are alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learning.mixture import Floats, Mixture, fit_mixture

Bools = npt.NDArray[np.bool_]

FEWEST = 5  # clients
EVIDENCE = 30.0  # times one over the clients: 6 for 5 of them, "strong" to Kass and Raftery (JASA 1995); 3 for 10
APART = 3.0
FEWEST_LOWER = 0.1
FLOOR = 0.02
TOGETHER = 4  # clients at least whose rounds count as the same time
LEAST = 0.01  # numbers below it count as it


@dataclass(frozen=True)
class Groups:
    """What was found.

    Attributes:
        higher: (clients,) bool, the higher group; all False unless it stands out.
        reason: The rest of a sentence that names the number: how the groups differ, or why they do not count.
    """

    higher: Bools
    reason: str


def two_groups(values: Floats, rounds: npt.NDArray[np.int64], least_gap: float = 0.1) -> Groups:
    """The higher of two groups of clients, if it stands out.

    Args:
        values: (clients,) finite numbers of at least 0.
        rounds: (clients,), the round of which each number is.
        least_gap: A smaller difference of the groups, as a share of the lower one's, does not count.
    """
    nobody = np.zeros(len(values), dtype=bool)
    if len(values) < FEWEST:
        few = "1 client is" if len(values) == 1 else f"{len(values)} clients are"
        return Groups(nobody, f"{few} too few to be compared; there must be {FEWEST}")
    logs = np.log(np.maximum(values, LEAST))
    low, high = logs.min(), logs.max()
    if high - low < 1e-9:
        return Groups(nobody, f"all {len(values)} clients are alike")
    scaled = (logs - low) / (high - low)
    mixture = fit_mixture(scaled, tolerance=1e-4, floor=FLOOR * float(scaled.var()))
    higher = (mixture.lower(scaled) < 0.5) & (scaled > mixture.means[0])
    if not higher.any() or higher.all():
        return Groups(nobody, f"the {len(values)} clients do not fall into two groups")
    gap = float(logs[higher].mean() - logs[~higher].mean())
    groups = f"that of {higher.sum()} of {len(values)} clients is {math.exp(gap):.3g} times that of the others"
    if (why := _why_not(scaled, mixture, higher, least_gap, gap)) or (why := _why_time(logs, rounds, higher, gap)):
        return Groups(nobody, f"{groups}, {why}")
    return Groups(higher, groups)


def evidence(scaled: Floats, mixture: Mixture) -> float:
    """BIC of one Gaussian less that of a mixture of two, of (n,) numbers; above 0 speaks for two."""
    count = len(scaled)
    of_one = -0.5 * (math.log(2 * math.pi * float(scaled.var())) + 1)
    return 2 * count * (mixture.log_likelihood(scaled) - of_one) - 3 * math.log(count)


def _why_not(scaled: Floats, mixture: Mixture, higher: Bools, least_gap: float, gap: float) -> str:
    """Why the groups do not count; empty if they do."""
    if (found := evidence(scaled, mixture)) <= (needed := EVIDENCE / len(scaled)):
        return f"which may be chance (evidence {found:.3g} of {needed:.3g})"
    apart = float((mixture.means[1] - mixture.means[0]) / math.sqrt(mixture.variances.mean()))
    if apart <= APART:
        return f"without a gap between them (distance {apart:.3g} of {APART:g} deviations)"
    if math.expm1(gap) <= least_gap:
        return f"less than {1 + least_gap:g} times"
    if (~higher).sum() < max(2, FEWEST_LOWER * len(higher)):
        return "of whom there are too few"
    return ""


def _why_time(logs: Floats, rounds: npt.NDArray[np.int64], higher: Bools, gap: float) -> str:
    """The same, if their rounds explain it."""
    difference, total = 0.0, 0.0
    for time in np.unique(times := times_of(rounds)):
        above, below = logs[(times == time) & higher], logs[(times == time) & ~higher]
        if len(above) and len(below):
            weight = len(above) * len(below) / (len(above) + len(below))
            difference += weight * float(above.mean() - below.mean())
            total += weight
    if not total:
        return "and they trained in other rounds than those"
    return "which comes from the rounds in which they trained" if difference / total < gap / 2 else ""


def times_of(rounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(clients,): 0, 1, ... for consecutive rounds, each with at least `TOGETHER` clients, but if there are fewer."""
    numbers, counts = np.unique(rounds, return_counts=True)
    time, held, of_number = 0, 0, {}
    for index, (number, count) in enumerate(zip(numbers.tolist(), counts.tolist(), strict=True)):
        of_number[number], held = time, held + count
        if held >= TOGETHER and counts[index + 1 :].sum() >= TOGETHER:
            time, held = time + 1, 0
    return np.array([of_number[number] for number in rounds.tolist()], dtype=np.int64)
