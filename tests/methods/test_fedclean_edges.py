"""FedClean at odd clients: few images, all or none of them noisy, equal losses, and models that answer anything."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.batches import not_alone
from methods.fedclean import CLEAN, FedClean, largest, upper
from tests.methods.test_fedclean import LABELS, Models, sure, suspicion_of, visit_by


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("who", ["nobody", "everybody", "one", "two"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_small_clients_train_on_two_images_at_least(count: int, who: str, stage: int) -> None:
    """Or on their only one. Models agree with the labels of nobody, everybody, one or two."""
    labels = torch.arange(count) % 3
    right = {"nobody": 0, "everybody": count, "one": 1, "two": 2}[who]
    said = [int(label) if row < right else int(label + 1) % 3 for row, label in enumerate(labels)]
    models = Models(sure(said, 3.0), sure([(one + (row >= right)) % 3 for row, one in enumerate(said)], 1.0))
    visit = visit_by(FedClean(), labels, models, stage)
    clean = min(right, count)
    assert visit.scratch["rows"] == list(range(clean if clean > 1 else count))
    assert visit.used == len(visit.scratch["rows"])
    assert visit.suspected is not None
    assert int(visit.suspected.sum()) == count - clean


def test_where_all_are_noisy_both_models_together_correct_them() -> None:
    """Twenty images, none of whose labels anybody believes, with equal margins: no mixture, and the first 16 of 20."""
    models = Models(sure([1] * 20, 3.0), sure([1] * 20, 3.0))
    visit = visit_by(FedClean(), LABELS, models, 2)
    assert visit.labels.tolist() == [1] * 16 + [0] * 4
    assert visit.scratch["rows"] == list(range(16))


def test_where_nobody_is_noisy_nothing_changes() -> None:
    models = Models(sure([0] * 20, 3.0), sure([0] * 20, [0.1 * row for row in range(20)]))
    visit = visit_by(FedClean(), LABELS, models, 3)
    assert visit.scratch["rows"] == list(range(20))
    assert torch.equal(visit.labels, LABELS)
    assert visit.suspected is not None
    assert not visit.suspected.any()


def test_models_that_answer_nonsense_break_nothing() -> None:
    nonsense = torch.full((20, 3), float("nan"))
    visit = visit_by(FedClean(), LABELS, Models(nonsense, nonsense), 3)
    assert 2 <= len(visit.scratch["rows"]) <= 20
    assert all(0 <= label < 3 for label in visit.labels.tolist())
    assert suspicion_of(visit).isfinite().all()


def test_upper_by_hand() -> None:
    values = np.array([0.1, 0.2, 0.15, 0.12, 0.18, 0.11, 0.19, 5.0, 5.1, 4.9])
    assert upper(values).tolist() == [False] * 7 + [True] * 3
    assert upper(1000 * values - 7).tolist() == [False] * 7 + [True] * 3  # whatever the scale
    assert upper(values[:9]).all()
    assert upper(np.full(30, 2.5)).all()
    assert upper(np.array([*values, np.inf])).all()
    assert upper(np.zeros(0)).tolist() == []


def test_what_is_below_the_lower_mean_is_never_upper() -> None:
    """A wide upper Gaussian has more of the smallest numbers than a narrow lower one."""
    values = np.array([0.0, *np.linspace(0.30, 0.34, 40), *np.linspace(0.3, 1.0, 12)])
    assert not upper(values)[0]
    assert upper(values)[-1]


@given(st.lists(st.floats(0, 100), min_size=0, max_size=50), st.floats(0, 1))
def test_the_largest_of_the_upper_ones(numbers: list[float], share: float) -> None:
    values = np.array(numbers)
    among = upper(values)
    chosen = largest(values, among, share)
    assert len(chosen) == math.floor(share * among.sum() + 1e-9)
    assert among[chosen].all()
    left = np.setdiff1d(np.flatnonzero(among), chosen)
    assert not len(left) or not len(chosen) or values[left].max() <= values[chosen].min()
    assert len(set(chosen.tolist())) == len(chosen)


def test_of_equal_numbers_the_first_are_taken() -> None:
    assert largest(np.array([1.0, 3.0, 3.0, 3.0]), np.array([True] * 4), 0.5).tolist() == [1, 2]
    assert len(largest(np.zeros(100), np.ones(100, dtype=bool), 0.29)) == 29


@given(st.integers(0, 40), st.integers(1, 9))
def test_no_image_is_alone_in_the_last_batch(count: int, batch_size: int) -> None:
    rows = torch.arange(count)
    batches = not_alone(list(rows.split(batch_size)) if count else [], batch_size)
    assert [row for batch in batches for row in batch.tolist()] == rows.tolist()
    if count > 1 and batch_size > 1:
        assert min(map(len, batches)) > 1
    assert all(len(batch) <= batch_size + 1 for batch in batches)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 3), st.integers(1, 7), st.booleans(), st.integers(0, 999))
def test_whatever_models_say_a_client_trains(
    count: int, classes: int, stage: int, batch_size: int, drop_last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    own, shared = (4 * torch.randn(count, classes, generator=generator) for _ in range(2))
    models = Models(own, shared)
    visit = visit_by(FedClean(), labels, models, stage, batch_size=batch_size, drop_last=drop_last)
    assert visit.suspected is not None
    clean = visit.state[CLEAN]
    assert torch.equal(clean & (visit.labels == labels), ~visit.suspected)
    assert torch.equal(visit.labels[~clean], labels[~clean])
    assert visit.used == (int(clean.sum()) if clean.sum() > 1 else count)
    rows = visit.scratch["rows"]
    assert 1 <= len(set(rows)) == len(rows) <= visit.used
    assert (suspicion_of(visit)[visit.suspected] >= 1).all()
    assert (suspicion_of(visit)[~visit.suspected] < 1).all()
