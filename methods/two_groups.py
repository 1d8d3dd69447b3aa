"""Whether the clients of a federation fall into two groups by one number each, or are alike.

Two groups can always be made, also where all clients are alike and differ only by chance, as with any IID split of
Clothing1M. Here clients are divided by the logarithms x_k of their numbers, since these differ by factors, into the two
groups that lie closest to their means (2-means). The higher one counts only if

* it lies higher than chance explains. Clients report the standard errors of their numbers by the sampling of images;
  divided by the numbers, they are about those of x_k. As in `noisy_clients`,
  ``gap > OWN error (median z of the a highest - median z of the others + SPREADS sqrt(1 / a + 1 / (K - a)))``,
  error the median of the group where it is larger. `OWN` is for what sampling leaves out: each client's own training
  and the round of it;
* a gap is between the groups: their means are more than `APART` of the deviations within them apart. That needs no
  error, and is for clients that differ in other ways than noise, such as in their classes: one normal distribution cut
  in two has about 2.7, a flat one 3.5, and both more if clients are few;
* their means differ by a factor of at least ``1 + least_gap``;
* at least `FEWEST_LOWER` of all clients are in the lower one, and two: otherwise one client with a very low number,
  which it may have made up, would have all others accused;
* it is no matter of time. Clients report in different rounds, from models that are trained more and more. Between
  clients of the same rounds, the groups must differ by at least half as much as overall.

What errors one client makes up moves no median far. With a very low or high number, it becomes a group of its own: the
others are then all clean, but never accused.

In 18 runs with 40 % wrong labels at each of 10 or 40 clients, these spread by 0.8 to 3.3 standard errors (medians 1.5,
2.0 and 1.8 in the three settings), since each trains for itself, in its own round. Their gaps were at most 0.85 of what
chance explains; in six runs without wrong labels sometimes more, and one of 14 judgements accused one of 10 clients.
Where some clients had 50 to 80 % wrong labels, gaps were at least 1.5 times what chance explains.

`python -m tests.methods.test_two_groups` prints how often this accuses anybody of clients that are alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learning.mixture import Floats, divide, fit_mixture
from methods.noisy_clients import errors_by_chance

Bools = npt.NDArray[np.bool_]

FEWEST = 5  # clients
OWN = 2.0  # deviation of alike clients, in standard errors by the sampling of their images
APART = 4.0
FEWEST_LOWER = 0.1
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


def two_groups(values: Floats, errors: Floats, rounds: npt.NDArray[np.int64], least_gap: float = 0.1) -> Groups:
    """The higher of two groups of clients, if it stands out.

    Args:
        values: (clients,) finite numbers of at least 0.
        errors: (clients,) their standard errors by the sampling of images, likewise.
        rounds: (clients,), the round of which each number is.
        least_gap: A smaller difference of the groups, as a share of the lower one's, does not count.
    """
    nobody = np.zeros(len(values), dtype=bool)
    if len(values) < FEWEST:
        few = "1 client is" if len(values) == 1 else f"{len(values)} clients are"
        return Groups(nobody, f"{few} too few to be compared; there must be {FEWEST}")
    values = np.maximum(values, LEAST)
    logs = np.log(values)
    if np.ptp(logs) < 1e-9:
        return Groups(nobody, f"all {len(values)} clients are alike")
    higher = ~divide(logs)
    gap = float(logs[higher].mean() - logs[~higher].mean())
    groups = f"that of {higher.sum()} of {len(values)} clients is {math.exp(gap):.3g} times that of the others"
    why = (
        _why_chance(errors / values, higher, gap)
        or _why_not(logs, higher, least_gap, gap)
        or _why_time(logs, rounds, higher, gap)
    )
    return Groups(nobody if why else higher, f"{groups}, {why}" if why else groups)


def always_two(values: Floats) -> Groups:
    """The clients of the higher of two Gaussians, as the paper has it: there always are some, unless all are equal.

    Args:
        values: (clients,) finite numbers.
    """
    spread = np.ptp(values) if len(values) else 0.0
    if not spread:
        return Groups(np.zeros(len(values), dtype=bool), f"all {len(values)} clients are alike")
    scaled = (values - values.min()) / spread
    higher = fit_mixture(scaled, tolerance=1e-3).is_upper(scaled)
    return Groups(higher, f"the higher of two groups, however alike they are, has {higher.sum()} of {len(values)}")


def _why_chance(errors: Floats, higher: Bools, gap: float) -> str:
    """Why the groups may be chance; empty if they are not. `errors` are those of the logarithms."""
    # In the group where the error is larger, since a group may be one client.
    error = OWN * float(max(np.median(errors[higher]), np.median(errors[~higher])))
    chance = error * errors_by_chance(int(higher.sum()), len(higher))
    if gap > chance:
        return ""
    largest = math.exp(min(chance, 99.0))
    return f"which may be chance (up to {largest:.3g} times)"


def _why_not(logs: Floats, higher: Bools, least_gap: float, gap: float) -> str:
    """Why the groups do not count by themselves; empty if they do."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in (logs[higher], logs[~higher]))
    within = math.sqrt(squares / (len(logs) - 2))
    if gap <= APART * within:
        return f"without a gap between them (distance {gap / within:.3g} of {APART:g} deviations)"
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
