"""Finding noisy clients: numbers worked by hand, simulated federations whose truth is known, and bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.noisy_clients import client_scores, detect, errors_by_chance, excess_losses, normalise, split_in_two
from tests.methods.federations import LOSSES, MIXES, federation

CLASSES = 14
NAN = float("nan")
TRIALS = 20


def _federation(rng: np.random.Generator, sizes: Any, wrong: Any, absent: int = 0) -> Any:
    """(losses, variances, counts) of clients with `wrong` shares of wrong labels, each without `absent` of the classes.

    A right label costs 0.5 nats on average, a wrong one 3.5.
    """
    losses, variances, counts = np.zeros((3, len(sizes), CLASSES))
    for k, (size, share) in enumerate(zip(sizes, wrong, strict=True)):
        labels = rng.choice(rng.permutation(CLASSES)[absent:], size)
        bad = rng.random(size) < share
        loss = rng.exponential(np.where(bad, 1.0, 0.5)) + 2.5 * bad
        counts[k] = np.bincount(labels, minlength=CLASSES)
        with np.errstate(invalid="ignore"):
            losses[k] = np.bincount(labels, loss, CLASSES) / counts[k]
            variances[k] = np.maximum(np.bincount(labels, loss**2, CLASSES) / counts[k] - losses[k] ** 2, 0)
    return losses, variances, counts.astype(np.int64)


def _sizes(rng: np.random.Generator, clients: int, low: int, high: int) -> Any:
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), clients)).astype(int)


def test_losses_are_normalised_by_class() -> None:
    """Missing ones are like the least; a class on which all agree, or that nobody has, is 0."""
    losses = np.array([[0.2, 0.5, 3.0, NAN], [0.4, NAN, 3.0, NAN], [1.0, 0.9, 3.0, NAN]])
    expected = np.array([[0.0, 0, 0, 0], [0.25, 0, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(normalise(losses), expected, atol=1e-12)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(0, 50) | st.just(NAN))
)
def test_normalised_losses_lie_between_0_and_1_in_the_order_of_the_losses(losses: Any) -> None:
    rows = normalise(losses)
    assert ((rows >= 0) & (rows <= 1)).all()
    for column, scaled in zip(losses.T, rows.T, strict=True):
        known = ~np.isnan(column)
        assert (np.diff(scaled[known][np.argsort(column[known])]) >= 0).all()
        assert (scaled[~known] == 0).all()
        if known.any() and column[known].max() > column[known].min():
            assert scaled.max() == 1


def test_excess_losses_by_hand() -> None:
    """By class: means (10 * 1 + 30 * 2) / 40 = 1.75 and 3; variances 40 * 1.9 / (40 - 2) = 2 and 10 * 0.9 / 9 = 1."""
    losses, counts = np.array([[1.0, 3.0], [2.0, NAN]]), np.array([[10, 10], [30, 0]])
    variances = np.array([[1.9, 0.9], [1.9, NAN]])
    excess, errors, mean = excess_losses(losses, variances, counts)
    assert excess == pytest.approx([-0.375, 0.25])  # (10 * -0.75 + 10 * 0) / 20 and 30 * 0.25 / 30
    assert errors == pytest.approx([np.sqrt(10 * 2 + 10 * 1) / 20, np.sqrt(30 * 2) / 30])
    assert mean == pytest.approx(100 / 50)


def test_two_groups_are_split_and_the_higher_one_is_noisy() -> None:
    rows = np.array([[0.0, 0.1], [0.9, 1.0], [0.05, 0.0], [1.0, 0.95], [0.1, 0.05]])
    np.testing.assert_array_equal(split_in_two(rows), [False, True, False, True, False])


def test_the_set_with_most_votes_wins_or_the_earlier_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first four fits find client 2 and the other five client 1; then they find 0, 1 and 2 in turn."""
    in_turn = False
    seen = []

    class Mixture:
        def __init__(self, components: int, covariance_type: str, random_state: int) -> None:
            seen.append((components, covariance_type, random_state))
            self.seed, self.means_ = random_state, np.array([[0.9, 0.1], [0.2, 0.3]])

        def fit(self, rows: Any) -> "Mixture":
            return self

        def predict(self, rows: Any) -> Any:
            noisy = self.seed % 3 if in_turn else 2 if self.seed < 4 else 1
            return np.where(np.arange(len(rows)) == noisy, 0, 1)

    monkeypatch.setattr("sklearn.mixture.GaussianMixture", Mixture)
    rows = np.eye(3, 2)
    np.testing.assert_array_equal(split_in_two(rows), [False, True, False])
    assert seen == [(2, "diag", seed) for seed in range(9)]
    in_turn = True
    np.testing.assert_array_equal(split_in_two(rows), [True, False, False])
    seen.clear()
    split_in_two(np.repeat(rows, 2, axis=0))
    assert {covariance for _, covariance, _ in seen} == {"full"}


@pytest.mark.parametrize("rows", [[[0.3, 0.7]], [[0.0, 0.0]] * 5, [[0.5, 0.1]] * 40], ids=["one", "zeros", "equal"])
def test_identical_rows_are_not_two_groups(rows: Any) -> None:
    assert not split_in_two(np.array(rows)).any()


def test_two_distinct_rows_and_repeated_rows_are_split() -> None:
    np.testing.assert_array_equal(split_in_two(np.array([[0.0, 0.0], [1.0, 1.0]])), [False, True])
    np.testing.assert_array_equal(
        split_in_two(np.array([[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 30)), [True] * 2 + [False] * 30
    )


@pytest.mark.parametrize("share", [0.0, 0.38], ids=["clean", "equally-noisy"])
@pytest.mark.parametrize(
    ("clients", "low", "high"),
    [(10, 100, 100), (20, 1000, 1000), (100, 100, 100), (10, 100, 10_000), (20, 100, 1000), (10, 10_000, 10_000)],
)
def test_among_alike_clients_nobody_stands_out(clients: int, low: int, high: int, share: float) -> None:
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, clients, low, high])
        found = detect(*_federation(rng, _sizes(rng, clients, low, high), [share] * clients))
        assert not found.stands_out, found
        assert not found.noisy.any()
        assert "count as clean: " in found.reason
        assert "set clients='all-noisy' in 'method-args'." in found.reason


def test_chance_alone_is_not_a_finding_however_small_the_least_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """With clients of unlike sizes; a rule of one standard error would be fooled."""
    fooled = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, 5])
        alike = _federation(rng, _sizes(rng, 5, 100, 3000), [0.38] * 5)
        found = detect(*alike, least_gap=0.0)
        assert not found.stands_out, found
        assert "that may be chance" in found.reason or "two groups" in found.reason
        fooled += bool(found.gap > np.median(excess_losses(*alike)[1]))
    assert fooled > TRIALS / 10


@pytest.mark.parametrize(
    ("clients", "noisy", "low", "high", "absent"),
    [
        (10, 4, 100, 100, 0),
        (20, 8, 100, 5000, 0),
        (100, 40, 100, 1000, 0),
        (10, 1, 200, 200, 0),
        (2, 1, 500, 500, 0),
        (20, 8, 300, 3000, 4),
        (100, 40, 300, 3000, 7),
    ],
)
def test_a_noisy_group_is_found_exactly(clients: int, noisy: int, low: int, high: int, absent: int) -> None:
    for trial in range(20):
        rng = np.random.default_rng([trial, clients, noisy])
        truth = np.zeros(clients, dtype=bool)
        truth[rng.choice(clients, noisy, replace=False)] = True
        told = _federation(rng, _sizes(rng, clients, low, high), truth * rng.uniform(0.5, 0.8, clients), absent)
        assert ((told[2] == 0).sum(axis=1) >= absent).all()
        found = detect(*told)
        np.testing.assert_array_equal(found.noisy, truth, err_msg=found.reason)
        assert found.stands_out
        assert found.gap > 1
        again = detect(*told)
        assert (again.reason, again.gap, again.chance) == (found.reason, found.gap, found.chance)
        scores = client_scores(found.noisy, np.where(truth, 0.65, 0.0))
        assert scores == {"noisy-clients": noisy, "noisy-clients-precision": 1, "noisy-clients-recall": 1}


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize(("clients", "images"), [(5, 100), (10, 30), (20, 100)])
def test_with_losses_like_real_ones_alike_clients_are_never_accused(clients: int, images: int, losses: str) -> None:
    for mix in MIXES:
        for unlike in (False, True):
            rng = np.random.default_rng([clients, images])
            alike = federation(rng, clients, images, noise="alike", losses=losses, mix=mix, unlike=unlike)
            assert not alike.detect().noisy.any(), (mix, unlike)


@pytest.mark.parametrize(("losses", "least"), [("trained", 1.0), ("fresh", 0.8), ("tails", 1.0), ("sure", 1.0)])
def test_with_losses_like_real_ones_noisy_clients_are_found(losses: str, least: float) -> None:
    """20 clients with 100 images; a limit of five errors of one client finds half of them with `fresh` losses."""
    recalls = []
    for seed in range(4):
        for mix in MIXES:
            one = federation(np.random.default_rng([seed, 20]), 20, 100, noise="half", losses=losses, mix=mix)
            noisy = one.detect().noisy
            assert not (noisy & ~one.truth).any()
            recalls.append((noisy & one.truth).sum() / one.truth.sum())
    assert np.mean(recalls) >= least, recalls


@pytest.mark.parametrize(
    ("highest", "clients", "ordered"),
    [  # the expected values of ordered normal draws, from tables
        (1, 2, [-0.5642, 0.5642]),
        (1, 5, [-1.1630, -0.4950, 0.0, 0.4950, 1.1630]),
        (2, 4, [-1.0294, -0.2970, 0.2970, 1.0294]),
    ],
)
def test_what_chance_explains(highest: int, clients: int, ordered: list[float]) -> None:
    gap = np.median(ordered[-highest:]) - np.median(ordered[:-highest])
    errors = 3 * np.sqrt(1 / highest + 1 / (clients - highest))
    assert errors_by_chance(highest, clients) == pytest.approx(gap + errors, abs=0.06)


def test_one_of_many_must_stand_out_more_than_half_of_them() -> None:
    limits = [errors_by_chance(highest, 100) for highest in (1, 5, 20, 50)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 5
    assert limits[-1] < 2.1


def _fitted(trained: Any, wrong: Any, better: float = 0.75) -> Any:
    """A federation of clients with 400 images, where the model fits those that it was `trained` by better."""
    losses, variances, counts = _federation(np.random.default_rng(3), [400] * len(wrong), wrong)
    losses[trained] *= better
    return losses, variances, counts


def test_clients_that_the_model_has_just_been_trained_by_do_not_make_the_others_noisy() -> None:
    trained = np.isin(np.arange(10), [2, 7])
    alike = _fitted(trained, [0.4] * 10)
    np.testing.assert_array_equal(detect(*alike).noisy, ~trained)
    found = detect(*alike, trained=trained)
    assert not found.noisy.any()
    assert np.isnan(found.gap)
    assert np.isnan(found.chance)
    assert "the two groups are those clients that trained in the round before, and the others;" in found.reason
    most = ~trained
    assert not detect(*_fitted(most, [0.4] * 10), trained=most).noisy.any()


@pytest.mark.parametrize("of", [[], [2, 7], [0, 5], [0, 1, 2, 3, 5, 6, 7, 8, 9], range(10)])
def test_noisy_clients_are_found_whoever_trained(of: Any) -> None:
    trained = np.isin(np.arange(10), list(of))
    truth = np.isin(np.arange(10), [1, 5, 7])
    found = detect(*_fitted(trained, np.where(truth, 0.7, 0.0)), trained=trained)
    np.testing.assert_array_equal(found.noisy, truth, err_msg=found.reason)


def test_one_noisy_client_that_trained_is_compared_with_those_that_trained_too() -> None:
    trained, truth = np.isin(np.arange(10), [2, 7]), np.arange(10) == 7
    federation_of_one = _fitted(trained, np.where(truth, 0.8, 0.0), better=0.95)
    found = detect(*federation_of_one, trained=trained)
    np.testing.assert_array_equal(found.noisy, truth, err_msg=found.reason)
    errors = excess_losses(*federation_of_one)[1]
    assert found.chance == pytest.approx(errors_by_chance(1, 2) * errors[[2, 7]].max())


def test_a_certain_but_small_gap_is_not_a_finding() -> None:
    rng = np.random.default_rng(1)
    close = _federation(rng, [100_000] * 10, [0.40] * 6 + [0.44] * 4)
    found = detect(*close)
    assert not found.stands_out
    assert found.gap == pytest.approx(0.12, abs=0.03)
    assert "4 of 10 clients" in found.reason
    assert "less than 0.1 of the mean loss 1.7" in found.reason
    assert detect(*close, least_gap=0.01).noisy.sum() == 4


def test_a_clients_classes_are_not_mistaken_for_noise() -> None:
    """Half of the clients hold the hard classes, which cost five times as much."""
    losses, counts = np.full((10, 4), NAN), np.zeros((10, 4), np.int64)
    losses[:5, :2], losses[5:, 2:] = 0.5, 2.5
    losses += np.random.default_rng(0).normal(scale=0.01, size=losses.shape)
    counts[:5, :2] = counts[5:, 2:] = 500
    found = detect(losses, np.full_like(losses, 0.05), counts)
    assert not found.stands_out


def test_one_client_and_clients_that_did_not_answer() -> None:
    rng = np.random.default_rng(2)
    losses, variances, counts = _federation(rng, [500] * 10, [0.6] * 3 + [0.0] * 7)
    for name, alone in {"one": slice(1), "nobody": slice(0)}.items():
        found = detect(losses[alone], variances[alone], counts[alone])
        assert not found.noisy.any(), name
        assert np.isnan(found.gap)
        assert "do not fall into two groups" in found.reason
    counts[[0, 9]], losses[[0, 9]], variances[[0, 9]] = 0, NAN, NAN
    found = detect(losses, variances, counts)
    np.testing.assert_array_equal(np.flatnonzero(found.noisy), [1, 2])
    assert found.reason.startswith("Noisy clients found: the loss of 2 of 8 clients is ")


def test_bad_input_is_refused() -> None:
    losses, counts = np.ones((3, 2)), np.ones((3, 2), np.int64)
    with pytest.raises(ValueError, match=r"shapes \(3, 2\), \(3, 1\) and \(3, 2\); all must be \(clients, classes\)"):
        detect(losses, losses[:, :1], counts)
    for bad in (NAN, float("inf"), -1.0):
        variances = losses.copy()
        variances[1, 1] = bad
        with pytest.raises(ValueError, match="needs a finite loss and a variance of at least 0"):
            detect(losses, variances, counts)
    with pytest.raises(ValueError, match="needs a finite loss"):
        detect(np.full((3, 2), NAN), losses, counts)


@pytest.mark.parametrize(
    ("noisy", "shares", "expected"),
    [
        ([1, 1, 0, 0], [0.6, 0.1, 0.7, 0.0], (2, 0.5, 0.5)),
        ([0, 0, 0, 0], [0.6, 0.1, 0.7, 0.0], (0, None, 0)),
        ([1, 0, 0, 0], [0.38, 0.4, 0.39, 0.47], (1, 0, None)),  # 0.09 apart: nobody is noisy
        ([0, 1, 0, 0], [0.2, 0.3, 0.25, 0.2], (1, 1, 1)),  # 0.1 apart; 0.25 is the middle and not above it
        ([1, 0, 0, 1], [0.38, 0.4, NAN, 0.9], (2, None, None)),
    ],
)
def test_scores(noisy: Any, shares: Any, expected: Any) -> None:
    names = ("noisy-clients", "noisy-clients-precision", "noisy-clients-recall")
    scores = client_scores(np.array(noisy, dtype=bool), np.array(shares))
    assert scores == {name: value for name, value in zip(names, expected, strict=True) if value is not None}
