"""Whom the server half of FedCorr takes for noisy, when, and what the log says of it."""

import logging

import numpy as np
import pytest
from flwr.app import ArrayRecord

from learning.server_half import Choice
from server_app.rounds import judgement, scores_of
from tests.methods.fedcorr_rounds import CLIENTS, LIDS, NOISY, new_half, one_round, reply_of, tags_of


def test_nobody_is_judged_before_all_have_been_visited() -> None:
    half = new_half()
    assert half.noisy_clients() is None
    one_round(half, 1)
    assert (tags_of(half), half.noisy_clients(), scores_of(judgement(half)), half.wrong_labels()) == ([], None, {}, {})
    assert half.tell(2) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 0}
    one_round(half, 2)
    assert half.noisy_clients() == {k: k in NOISY for k in CLIENTS}
    assert half.wrong_labels() == {k: 0.6 if k in NOISY else 0.0 for k in CLIENTS}
    assert scores_of(judgement(half)) == {
        "noisy-clients": 3.0,
        "noisy-clients-precision": 1.0,
        "noisy-clients-recall": 1.0,
    }
    assert half.tell(2) == {"stage": 1, "noisy": True, "delta": 0.6, "judgements": 1}
    assert half.tell(3) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 1}


def test_delta_is_told_in_stage_1_alone() -> None:
    half = new_half()
    told = []
    for server_round in range(1, 8):
        one_round(half, server_round)
        told.append([half.tell(2)[name] for name in ("stage", "noisy", "delta", "judgements")])
    assert told[3:] == [[1, True, 0.6, 2], [2, True, 0.0, 2], [2, True, 0.0, 2], [3, True, 0.0, 2]]


def test_a_turn_that_ends_within_a_round_is_judged_then_and_the_end_of_stage_1_anyway() -> None:
    """Four of ten clients a round: turns end in rounds 3, 5 and 8, and stage 1 in round 7."""
    half = new_half("preprocessing-rounds=7", rounds=10)
    judgements = []
    for server_round in range(1, 8):
        one_round(half, server_round, usual=4)
        judgements.append(half.tell(0)["judgements"])
    assert judgements == [0, 0, 1, 1, 2, 2, 3]


def test_a_client_that_was_visited_twice_is_compared_by_its_mean() -> None:
    """Client 0 has a sum of 6, like none of the clean ones; by its mean of 3 it is one of them."""
    half = new_half("preprocessing-rounds=3", rounds=8)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {0: reply_of(0)})
    half.heard(2, {0: reply_of(0)})
    half.heard(3, {k: reply_of(k) for k in CLIENTS if k})
    assert tags_of(half) == list(NOISY)
    assert half.tell(0)["noisy"] is False


def test_tags_change_when_clients_look_otherwise() -> None:
    """Client 2 was a false alarm: its mean comes down to that of the others."""
    half = new_half("iterations=4", rounds=8)
    later = {**LIDS, 2: 0.3}
    tags = []
    for server_round in range(1, 5):  # ten clients a round
        one_round(half, server_round, lids=LIDS if server_round == 1 else later)
        tags.append(tags_of(half))
    assert tags[0] == [2, 5, 7]
    assert tags[-1] == [5, 7]
    assert half.tell(2) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 4}


def test_clients_that_are_alike_are_all_clean(caplog: pytest.LogCaptureFixture) -> None:
    half, rng = new_half(), np.random.default_rng(3)
    alike = {k: float(value) for k, value in enumerate(rng.normal(5, 0.3, 10))}
    with caplog.at_level(logging.WARNING, "flwr"):
        for server_round in range(1, 5):
            one_round(half, server_round, lids=alike)
    assert tags_of(half) == []
    assert half.noisy_clients() == dict.fromkeys(CLIENTS, False)
    start = "no client stands out by the dimension of its predictions, and all count as clean: "
    assert [message.partition(start)[0] for message in caplog.messages] == ["Round 2: ", "Round 4: "]
    assert scores_of(judgement(half)) == {"noisy-clients": 0.0, "noisy-clients-recall": 0.0}


def test_of_equal_judgements_the_first_and_the_last_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A round in which all clients train ends a turn, so that each of the ten rounds of stage 1 has a judgement."""
    half = new_half(rounds=20)
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 11):
            one_round(half, server_round, lids=dict.fromkeys(CLIENTS, 5.0), usual=10)
    assert half.tell(0)["judgements"] == 10
    assert [message.partition(":")[0] for message in caplog.messages] == ["Round 1", "Round 10"]


def test_a_judgement_that_changes_is_logged_also_after_a_resume(caplog: pytest.LogCaptureFixture) -> None:
    half = new_half(rounds=20)
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 7):
            resumed = new_half(rounds=20)
            resumed.load_state(half.state())
            half = resumed
            lids = LIDS if server_round > 2 else dict.fromkeys(CLIENTS, 5.0)
            one_round(half, server_round, lids=lids, usual=10)
    assert [message.partition(":")[0] for message in caplog.messages] == ["Round 1", "Round 4", "Noisy clients"]


def test_the_log_says_how_many_could_not_be_judged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        one_round(new_half(rounds=2), 1, silent=[3, 4, 6, 8, 9], usual=10)
        one_round(new_half(rounds=2), 1, usual=10)
    text = "5 of 10 clients could not be judged: they have not answered, or hold too few images."
    assert [message for message in caplog.messages if "judged" in message] == [text]


def test_a_client_that_never_answered_is_not_judged_counts_as_clean_and_may_fine_tune() -> None:
    half = new_half()
    for server_round in range(1, 5):
        one_round(half, server_round, silent=[5])
    assert half.noisy_clients() == {k: k in (2, 7) for k in CLIENTS if k != 5}
    assert half.tell(5) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 1}  # no turn ever ended
    half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert half.choose(5, CLIENTS, 5) == Choice([0, 1, 3, 4, 5, 6, 8, 9], 5)


def test_a_client_with_too_few_images_is_not_judged() -> None:
    half = new_half(rounds=2)
    half.choose(1, CLIENTS, 5)
    replies = {k: reply_of(k) for k in CLIENTS}
    del replies[5]["lid"], replies[5]["lid-error"]
    half.heard(1, replies)
    assert tags_of(half) == [2, 7]
    assert 5 not in (half.noisy_clients() or {})


@pytest.mark.parametrize("missing", ["lid", "lid-error"])
def test_a_client_that_sends_half_of_it_is_not_judged(missing: str) -> None:
    half = new_half(rounds=2)
    half.choose(1, CLIENTS, 5)
    replies = {k: reply_of(k) for k in CLIENTS}
    del replies[5][missing]
    half.heard(1, replies)
    assert 5 not in (half.noisy_clients() or {})


def test_errors_are_averaged_over_visits_and_decide() -> None:
    """Of 0.05 and 0.4 times the dimension, mean 0.225; clients 2, 5 and 7 are 1.005 above the others as logarithms, and
    6.892 errors (as in test_two_groups) may be chance: 0.146 or more."""
    half = new_half("preprocessing-rounds=2", rounds=8)
    tags = []
    for server_round, error in ((1, 0.05), (2, 0.4)):
        half.choose(server_round, CLIENTS, 10)
        half.heard(server_round, {k: reply_of(k, {"lid-error": error * LIDS[k]}) for k in CLIENTS})
        tags.append(tags_of(half))
    assert tags == [list(NOISY), []]


def test_the_papers_rule_calls_the_higher_group_noisy_however_alike_all_are(caplog: pytest.LogCaptureFixture) -> None:
    half = new_half("groups='always'", rounds=2)
    half.choose(1, CLIENTS, 5)
    with caplog.at_level(logging.INFO, "flwr"):
        half.heard(1, {k: reply_of(k, {"lid": 3.05 if k in NOISY else 3.0 + 0.001 * k}) for k in CLIENTS})
    assert tags_of(half) == list(NOISY)
    assert caplog.messages[0].endswith("the higher of two groups, however alike they are, has 3 of 10.")


def test_if_nobody_answers_nobody_is_judged() -> None:
    half = new_half(rounds=2)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {})
    assert half.noisy_clients() is None
    assert scores_of(judgement(half)) == {}
    half.before_round(2, ArrayRecord(), lambda action, arrays: {})
    assert half.tell(0)["stage"] == 3


def test_a_client_that_comes_back_gets_its_turn_first() -> None:
    """Client 3 is away in round 1; turns end without those who are away."""
    half = new_half(rounds=12)
    here = [k for k in CLIENTS if k != 3]
    for server_round in (1, 2):
        choice = half.choose(server_round, here, 5)
        assert choice is not None
        half.heard(server_round, {k: reply_of(k) for k in sorted(choice.clients)[: choice.count]})
    assert half.tell(0)["judgements"] == 1
    choice = half.choose(3, CLIENTS, 5)
    assert choice is not None
    assert 3 in choice.clients


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({}, 0.6),
        ({"images-known": 99}, None),
        ({"images-known": 0, "num-examples": 0}, None),
        ({"labels-right": 90.0, "images-known": 1, "num-examples": 1}, 0.0),  # a lie
    ],
)
def test_shares_of_wrong_labels_where_all_true_labels_are_known(values: dict[str, float], share: float | None) -> None:
    half = new_half(rounds=2)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: reply_of(k, values if k == 2 else None) for k in CLIENTS})
    assert half.wrong_labels().get(2) == share
    assert ("noisy-clients-recall" in scores_of(judgement(half))) == (share is not None)
