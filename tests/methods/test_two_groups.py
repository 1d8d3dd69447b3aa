"""Whether clients fall into two groups: by hand, how often alike ones are accused, and what else must not count.

    python -m tests.methods.test_two_groups

prints more of the same: how often anybody is accused in federations of alike clients, by how much these spread beyond
the sampling of their images, and how often all noisy clients and nobody else are found.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.two_groups import FEWEST, Groups, always_two, times_of, two_groups

Floats = npt.NDArray[np.float64]
# (generator, clients) to logarithms of alike clients' numbers, of deviation 0.1.
ALIKE: Mapping[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, clients: rng.normal(0, 0.1, clients),
    "skewed": lambda rng, clients: 0.39 * np.exp(rng.normal(0, 0.25, clients)),
    "even": lambda rng, clients: rng.uniform(-0.173, 0.173, clients),
}
NOISY = [2, 5, 7]
GROUPS = np.exp([0.0, 0.05, 1.0, 0.1, -0.05, 1.1, 0.02, 0.9, -0.1, 0.04])


def _one_round(count: int) -> npt.NDArray[np.int64]:
    return np.ones(count, dtype=np.int64)


def _judged(values: Floats, rounds: list[int] | None = None, least_gap: float = 0.1, error: float = 0.001) -> Groups:
    """With an `error` that is a share of each number."""
    given_rounds = _one_round(len(values)) if rounds is None else np.array(rounds)
    return two_groups(values, error * values, given_rounds, least_gap)


def _found(values: Floats, rounds: list[int] | None = None, least_gap: float = 0.1, error: float = 0.001) -> list[int]:
    return np.flatnonzero(_judged(values, rounds, least_gap, error).higher).tolist()


def test_two_groups_are_found() -> None:
    """The means of the logarithms are 1 and 0.06 / 7: 2.70 times."""
    found = _judged(GROUPS)
    assert np.flatnonzero(found.higher).tolist() == NOISY
    assert math.exp(1 - 0.06 / 7) == pytest.approx(2.6951, abs=1e-4)
    assert found.reason == "that of 3 of 10 clients is 2.7 times that of the others"


@pytest.mark.parametrize(("error", "found"), [(0.143, NOISY), (0.145, [])])
def test_what_chance_explains_by_hand(error: float, found: list[int]) -> None:
    """Of 10 ordered draws, the medians of the highest 3 and the lowest 7 are expected at 1.0005 and -0.3755 (Blom's
    approximation: 0.8415 and 0.3537 of a normal distribution lie below). With 3 sqrt(1/3 + 1/7) = 2.0702 on top, and
    clients that spread twice as much as sampling explains, chance has 2 * 3.4462 = 6.892 errors: of 0.1438, as much as
    the gap of 0.9914."""
    assert _found(GROUPS, error=error) == found


def test_the_reason_says_how_much_chance_explains() -> None:
    """exp(6.892 * 0.2) = 3.97."""
    assert _judged(GROUPS, error=0.2).reason == (
        "that of 3 of 10 clients is 2.7 times that of the others, which may be chance (up to 3.97 times)"
    )


@pytest.mark.parametrize(("higher", "found"), [(0.33, NOISY), (0.30, [])])
def test_the_gap_between_the_groups_by_hand(higher: float, found: list[int]) -> None:
    """The squares within the groups add up to 0.026486 and 0.02, so that the deviation within, of 10 - 2 degrees of
    freedom, is 0.07623; the means are 4.22 and 3.82 of it apart."""
    logs = np.log(GROUPS)
    logs[NOISY] += higher - 1
    assert _found(np.exp(logs)) == found
    if not found:
        assert _judged(np.exp(logs)).reason.endswith("without a gap between them (distance 3.82 of 4 deviations)")


def test_the_error_counts_of_the_group_where_it_is_larger() -> None:
    errors = 0.01 * GROUPS
    errors[NOISY] = 0.2 * GROUPS[NOISY]
    assert not two_groups(GROUPS, errors, _one_round(10)).higher.any()


@pytest.mark.parametrize("error", [0.0, 1e6])
def test_the_error_that_one_client_makes_up_does_not_matter(error: float) -> None:
    for liar in range(10):
        errors = 0.1 * GROUPS
        errors[liar] = error
        assert np.flatnonzero(two_groups(GROUPS, errors, _one_round(10)).higher).tolist() == NOISY


@pytest.mark.parametrize(("lie", "accused"), [(0.0, []), (1000.0, [10])])
def test_the_number_that_one_client_makes_up_accuses_nobody_else(lie: float, accused: list[int]) -> None:
    assert _found(np.array([*GROUPS, lie])) == accused


@pytest.mark.parametrize("scale", [0.02, 1.0, 100.0])
def test_the_unit_does_not_matter(scale: float) -> None:
    assert _found(scale * GROUPS) == NOISY


@pytest.mark.parametrize("clients", range(FEWEST))
def test_a_few_clients_are_not_compared(clients: int) -> None:
    found = _judged(GROUPS[:clients])
    assert not found.higher.any()
    few = "1 client is" if clients == 1 else f"{clients} clients are"
    assert found.reason == f"{few} too few to be compared; there must be 5"


def test_equal_clients_are_alike() -> None:
    assert _judged(np.full(9, 3.0)).reason == "all 9 clients are alike"
    assert _judged(np.zeros(9)).reason == "all 9 clients are alike"


def test_a_small_difference_does_not_count_however_certain() -> None:
    small = GROUPS**0.05  # 1.05 times
    assert _found(small) == []
    assert _found(small, least_gap=0.04) == NOISY
    assert "is 1.05 times that of the others, less than 1.1 times" in _judged(small).reason


def test_one_client_with_a_low_number_accuses_nobody() -> None:
    values = np.array([0.0, 5.0, 5.1, 4.9, 5.05, 5.2, 4.95])
    assert _found(values) == []
    assert _judged(values).reason.endswith("of the others, of whom there are too few")


def test_one_client_with_a_high_number_stands_out() -> None:
    assert _found(np.array([5.0, 5.1, 4.9, 5.05, 5.2, 50.0, 4.95, 5.0])) == [5]


def test_groups_of_different_rounds_do_not_count() -> None:
    """The network was better trained when the others were visited."""
    rounds = [2 if k in NOISY or k == 9 else 1 for k in range(10)]
    values = GROUPS.copy()
    values[9] = math.e
    assert _found(values) == [*NOISY, 9]
    assert _found(values, rounds) == []
    assert _judged(values, rounds).reason.endswith("and they trained in other rounds than those")


def test_groups_that_mostly_follow_the_rounds_do_not_count() -> None:
    """The means of the logarithms are 0.948 apart, but in round 2, the only one with clients of both, 0.35."""
    logs = [0.0, 0.05, -0.05, 0.02, -0.02, 0.03, 0.75, 0.8, 0.4, 0.45, 1.2, 1.25, 1.15, 1.2]
    rounds = [1] * 6 + [2] * 4 + [3] * 4
    assert _found(np.exp(logs)) == [6, 7, 10, 11, 12, 13]
    assert _judged(np.exp(logs), rounds).reason.endswith("which comes from the rounds in which they trained")


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


def test_the_papers_rule_always_finds_two_groups() -> None:
    """Also of clients that are alike, or few."""
    assert np.flatnonzero(always_two(GROUPS).higher).tolist() == NOISY
    assert always_two(GROUPS).reason == "the higher of two groups, however alike they are, has 3 of 10"
    assert always_two(np.array([3.0, 3.01])).higher.tolist() == [False, True]
    alike = np.exp(ALIKE["normal"](np.random.default_rng(1), 40))
    assert 0 < always_two(alike).higher.sum() < 40


@pytest.mark.parametrize("values", [np.zeros(0), np.ones(1), np.full(9, 3.0)])
def test_the_papers_rule_on_equal_clients(values: Floats) -> None:
    found = always_two(values)
    assert found.higher.shape == values.shape
    assert not found.higher.any()
    assert found.reason == f"all {len(values)} clients are alike"


def _accused(alike: str, clients: int, spread: float, federations: int, seed: int = 1) -> float:
    """Of alike clients that spread `spread` times as much as the errors that they report."""
    rng = np.random.default_rng(seed)
    values = (np.exp(ALIKE[alike](rng, clients)) for _ in range(federations))
    found = (two_groups(one, 0.1 / spread * one, _one_round(clients), 0).higher for one in values)
    return float(np.mean([higher.any() for higher in found]))


def _caught(clients: int, share: float, apart: float, federations: int, seed: int = 1) -> float:
    """Clients spread by 0.1 and 0.12, twice as much as the errors that they report."""
    rng, count = np.random.default_rng(seed), max(1, round(share * clients))
    right = []
    for _ in range(federations):
        logs = rng.normal(0, 0.1, clients)
        logs[:count] = rng.normal(0.1 * apart, 0.12, count)
        right.append(_found(np.exp(logs), error=0.05) == list(range(count)))
    return float(np.mean(right))


@pytest.mark.parametrize("clients", [5, 10, 20, 40, 100])
@pytest.mark.parametrize(("alike", "most"), [("normal", 0.03), ("skewed", 0.06), ("even", 0.2)])
def test_clients_as_alike_as_measured_are_seldom_accused(alike: str, most: float, clients: int) -> None:
    """Two to three standard errors is the most by which alike clients were seen to spread."""
    assert _accused(alike, clients, 2.5, 100) <= most


@pytest.mark.parametrize(("clients", "most"), [(10, 0.25), (20, 0.1), (40, 0.03), (100, 0.01)])
def test_clients_that_differ_otherwise_are_seldom_accused(clients: int, most: float) -> None:
    """Their errors are small, as where each holds other classes."""
    assert _accused("normal", clients, 100, 100) <= most


@pytest.mark.parametrize(("clients", "least"), [(10, 0.9), (40, 0.95)])
def test_noisy_clients_are_found(clients: int, least: float) -> None:
    """Which are eight of the clean ones' deviations away."""
    assert _caught(clients, 0.4, 8, 40) >= least


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 167)), max_size=30), st.integers(0, 2**32 - 1))
def test_nothing_that_clients_may_send_breaks_it(sent: list[tuple[float, float]], seed: int) -> None:
    values, errors = np.array(sent, dtype=np.float64).reshape(-1, 2).T
    rounds = np.random.default_rng(seed).integers(1, 10, len(values))
    found = two_groups(values, errors, rounds)
    assert found.higher.shape == (len(values),)
    assert not found.higher.any() or (~found.higher).sum() >= 2
    assert found.reason.isprintable()
    always = always_two(values)
    assert always.higher.shape == (len(values),)
    assert not len(values) or not always.higher[values.argmin()]


def main() -> None:
    """The command."""
    for clients in (5, 10, 20, 40, 100, 500):
        for spread in (1, 2, 2.5, 3, 100):
            accused = ", ".join(f"{alike} {_accused(alike, clients, spread, 400):.3f}" for alike in ALIKE)
            print(f"{clients} alike clients that spread {spread} errors, accused: {accused}")
        caught = ", ".join(f"{apart} apart {_caught(clients, 0.4, apart, 100):.2f}" for apart in (4, 5, 6, 8, 12))
        print(f"{clients} clients, exactly the noisy 40 % found: {caught}")


if __name__ == "__main__":
    main()
