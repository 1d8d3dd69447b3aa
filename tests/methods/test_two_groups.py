"""Whether clients fall into two groups: by hand, how often alike ones are accused, and what else must not count.

    python -m tests.methods.test_two_groups

prints more of the same: how often anybody is accused in federations of alike clients, and how often all noisy clients
and nobody else are found.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.mixture import Mixture
from methods.two_groups import FEWEST, evidence, times_of, two_groups

Floats = npt.NDArray[np.float64]
# (generator, clients) to logarithms of alike clients' numbers.
ALIKE: Mapping[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, clients: rng.normal(0, 0.1, clients),
    "skewed": lambda rng, clients: np.exp(rng.normal(-2, 0.25, clients)),
    "even": lambda rng, clients: rng.uniform(-0.2, 0.2, clients),
}
NOISY = [2, 5, 7]
GROUPS = np.exp([0.0, 0.05, 1.0, 0.1, -0.05, 1.1, 0.02, 0.9, -0.1, 0.04])


def _one_round(count: int) -> npt.NDArray[np.int64]:
    return np.ones(count, dtype=np.int64)


def _found(values: Floats, rounds: list[int] | None = None, least_gap: float = 0.1) -> list[int]:
    given_rounds = _one_round(len(values)) if rounds is None else np.array(rounds)
    return np.flatnonzero(two_groups(values, given_rounds, least_gap).higher).tolist()


def test_the_evidence_by_hand() -> None:
    """Of 0, 0, 1, 1 and Gaussians at 0 and 1 with v = 0.01: each number's density is half of one of the peaks,
    1 / (2 sqrt(2 pi 0.01)) = 1.994711, but for e^-50; one Gaussian has v = 0.25. So
    2 * 4 * (log 1.994711 + (log(2 pi 0.25) + 1) / 2) - 3 log 4 = 8 (0.690500 + 0.725791) - 4.158883."""
    mixture = Mixture(np.array([0.0, 1.0]), np.array([0.01, 0.01]), np.array([0.5, 0.5]))
    assert evidence(np.array([0.0, 0.0, 1.0, 1.0]), mixture) == pytest.approx(7.171446, abs=1e-5)


def test_two_groups_are_found() -> None:
    """The means of the logarithms are 1 and 0.06 / 7: 2.70 times."""
    found = two_groups(GROUPS, _one_round(10))
    assert np.flatnonzero(found.higher).tolist() == NOISY
    assert math.exp(1 - 0.06 / 7) == pytest.approx(2.6951, abs=1e-4)
    assert found.reason == "that of 3 of 10 clients is 2.7 times that of the others"


@pytest.mark.parametrize("scale", [0.02, 1.0, 100.0])
def test_the_unit_does_not_matter(scale: float) -> None:
    assert _found(scale * GROUPS) == NOISY


@pytest.mark.parametrize("clients", range(FEWEST))
def test_a_few_clients_are_not_compared(clients: int) -> None:
    found = two_groups(GROUPS[:clients], _one_round(clients))
    assert not found.higher.any()
    few = "1 client is" if clients == 1 else f"{clients} clients are"
    assert found.reason == f"{few} too few to be compared; there must be 5"


def test_equal_clients_are_alike() -> None:
    assert two_groups(np.full(9, 3.0), _one_round(9)).reason == "all 9 clients are alike"
    assert two_groups(np.zeros(9), _one_round(9)).reason == "all 9 clients are alike"


def test_a_small_difference_does_not_count_however_certain() -> None:
    small = GROUPS**0.05  # 1.05 times
    assert _found(small) == []
    assert _found(small, least_gap=0.04) == NOISY
    assert "is 1.05 times that of the others, less than 1.1 times" in two_groups(small, _one_round(10)).reason


def test_one_client_with_a_low_number_accuses_nobody() -> None:
    values = np.array([0.0, 5.0, 5.1, 4.9, 5.05, 5.2, 4.95])
    assert _found(values) == []
    assert two_groups(values, _one_round(7)).reason.endswith("of the others, of whom there are too few")


def test_one_client_with_a_high_number_stands_out() -> None:
    assert _found(np.array([5.0, 5.1, 4.9, 5.05, 5.2, 50.0, 4.95, 5.0])) == [5]


def test_groups_of_different_rounds_do_not_count() -> None:
    """The network was better trained when the others were visited."""
    rounds = [2 if k in NOISY or k == 9 else 1 for k in range(10)]
    values = GROUPS.copy()
    values[9] = math.e
    assert _found(values) == [*NOISY, 9]
    assert _found(values, rounds) == []
    assert two_groups(values, np.array(rounds)).reason.endswith("and they trained in other rounds than those")


def test_groups_that_mostly_follow_the_rounds_do_not_count() -> None:
    """Within round 2, the only client of the lower group is nearly as high as the others."""
    values = np.exp([0.0, 0.05, 1.0, 0.1, -0.05, 1.1, 0.02, 0.9, -0.1, 0.6])
    rounds = [2 if k in (*NOISY, 9) else 1 for k in range(10)]
    found = two_groups(values, np.array(rounds))
    assert not found.higher.any()


def test_groups_within_rounds_count() -> None:
    assert _found(GROUPS, [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]) == NOISY


@pytest.mark.parametrize(
    ("rounds", "times"),
    [
        ([1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 0, 0, 1, 1, 1, 1]),
        ([3, 1, 2, 5, 4, 6, 8, 7], [0, 0, 0, 1, 0, 1, 1, 1]),  # one a round: four by four
        ([1, 1, 1, 1, 1, 2, 2, 2], [0] * 8),  # the rest would be too few
        ([7], [0]),
    ],
)
def test_rounds_with_a_few_clients_are_taken_together(rounds: list[int], times: list[int]) -> None:
    assert times_of(np.array(rounds)).tolist() == times


def _accused(alike: str, clients: int, federations: int, seed: int = 1) -> float:
    rng = np.random.default_rng(seed)
    values = (np.exp(ALIKE[alike](rng, clients)) for _ in range(federations))
    return float(np.mean([two_groups(one, _one_round(clients), 0).higher.any() for one in values]))


def _caught(clients: int, share: float, apart: float, federations: int, seed: int = 1) -> float:
    rng, count = np.random.default_rng(seed), max(1, round(share * clients))
    right = []
    for _ in range(federations):
        logs = rng.normal(0, 0.1, clients)
        logs[:count] = rng.normal(0.1 * apart, 0.12, count)
        right.append(
            two_groups(np.exp(logs), _one_round(clients)).higher.tolist() == [k < count for k in range(clients)]
        )
    return float(np.mean(right))


@pytest.mark.parametrize(("clients", "most"), [(5, 0.12), (10, 0.12), (20, 0.1), (40, 0.05), (100, 0.04)])
def test_alike_clients_are_seldom_accused(clients: int, most: float) -> None:
    assert _accused("normal", clients, 100) <= most


@pytest.mark.parametrize(("clients", "least"), [(10, 0.7), (40, 0.9)])
def test_noisy_clients_are_found(clients: int, least: float) -> None:
    """Which are eight of the clean ones' deviations away."""
    assert _caught(clients, 0.4, 8, 40) >= least


@given(st.lists(st.floats(0, 1000), max_size=30), st.integers(0, 2**32 - 1))
def test_nothing_that_clients_may_send_breaks_it(values: list[float], seed: int) -> None:
    rounds = np.random.default_rng(seed).integers(1, 10, len(values))
    found = two_groups(np.array(values), rounds)
    assert found.higher.shape == (len(values),)
    assert not found.higher.any() or (~found.higher).sum() >= 2
    assert found.reason.isprintable()


def main() -> None:
    """The command."""
    for clients in (5, 10, 20, 40, 100, 500):
        accused = ", ".join(f"{alike} {_accused(alike, clients, 400):.3f}" for alike in ALIKE)
        caught = ", ".join(f"{apart} apart {_caught(clients, 0.4, apart, 100):.2f}" for apart in (4, 5, 6, 8, 12))
        print(f"{clients} clients: accused though alike: {accused}; exactly the noisy 40 % found: {caught}")


if __name__ == "__main__":
    main()
