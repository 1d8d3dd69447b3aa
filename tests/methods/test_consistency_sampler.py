"""FedDiv's sampler: predictions without a preference, the running mean by hand, sets and batches of one image."""

import math

import torch

from learning.batches import not_alone
from methods.consistency_sampler import consistent, first_with_two, updated_mean


def test_the_sampler_keeps_what_is_consistent_by_hand() -> None:
    """p = (.7, .2, .1) and xi = .5 add (.178337, .804719, 1.151293) to the logits."""
    logits = torch.tensor([[2.0, 1.8, 0.0], [3.0, 1.0, 0.0], [0.0, 1.0, 0.8], [0.0, 1.0, 0.8]])
    mean = torch.tensor([0.7, 0.2, 0.1])
    assert consistent(torch.tensor([0, 0, 1, 2]), logits, mean, 0.5).tolist() == [False, True, False, True]
    assert consistent(torch.tensor([0, 0, 1, 2]), logits, mean, 0.0).tolist() == [True, True, True, False]


def test_the_running_mean_by_hand() -> None:
    """.2 (.7, .2, .1) + .8 (.3, .275, .425)."""
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.3, 0.6]]).log()
    found = updated_mean(torch.tensor([0.7, 0.2, 0.1]), logits, 0.2)
    torch.testing.assert_close(found, torch.tensor([0.38, 0.26, 0.36]))
    assert updated_mean(found, logits + math.nan, 0.2).tolist() == found.tolist()


def test_sets_and_batches_without_single_images() -> None:
    empty, one, two, more = (torch.arange(count) for count in (0, 1, 2, 5))
    assert first_with_two(two, more) is two
    assert first_with_two(empty, one, more) is more
    assert first_with_two(one, empty, one) is one
    assert [len(rows) for rows in not_alone(list(more.split(2)), 2)] == [2, 3]
    assert [len(rows) for rows in not_alone(list(more.split(3)), 3)] == [3, 2]
    assert [len(rows) for rows in not_alone([one], 4)] == [1]
    assert [len(rows) for rows in not_alone(list(more.split(1)), 1)] == [1] * 5
