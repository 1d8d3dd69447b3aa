"""The server half of FedCorr: turns, judgements, stages, and what it tells."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from config.check import examine
from config.run_config import ConfigError, RunConfig
from learning.server_half import Choice
from methods import build_method
from methods.dimension import LARGEST
from methods.fedcorr import LARGEST_ERROR
from methods.fedcorr_on_server import FedCorrOnServer
from methods.two_groups import Groups
from server_app.rounds import judgement, scores_of

CLIENTS = range(10)
NOISY = (2, 5, 7)
LIDS = {k: 8.0 + 0.1 * k if k in NOISY else 3.0 + 0.02 * k for k in CLIENTS}


def _half(args: str = "", rounds: int = 8, seed: int = 1) -> FedCorrOnServer:
    """By default, of stages of 4, 2 and 2 rounds."""
    config = RunConfig(method="fedcorr", method_args=args, num_server_rounds=rounds, seed=seed)
    half = build_method(config).on_server()
    assert isinstance(half, FedCorrOnServer)
    half.prepare(config, None)
    return half


def _reply(
    partition: int, changed: Mapping[str, float] | None = None, lids: Mapping[int, float] = LIDS
) -> dict[str, float]:
    wrong = 60 if partition in NOISY else 0
    fixed = {"images-known": 100, "labels-right": 100 - wrong, "num-examples": 100, "noisy-share": 0.01 * wrong}
    lid = lids[partition]
    return {**fixed, "lid": lid, "lid-error": 0.05 * lid, **(changed or {})}


def _round(
    half: FedCorrOnServer,
    server_round: int,
    silent: Sequence[int] = (),
    lids: Mapping[int, float] = LIDS,
    usual: int = 5,
) -> list[int]:
    """One round of ten clients, of which usually half are sampled; those who were."""
    half.before_round(server_round, ArrayRecord(), lambda action, arrays: {})
    choice = half.choose(server_round, CLIENTS, usual) or Choice(CLIENTS, usual)
    sampled = random.Random(server_round).sample(sorted(choice.clients), min(choice.count, len(choice.clients)))
    half.heard(server_round, {k: _reply(k, lids=lids) for k in sampled if k not in silent})
    return sampled


def _tags(half: FedCorrOnServer) -> list[int]:
    return [k for k in CLIENTS if half.tell(k)["noisy"]]


# --- turns


@pytest.mark.parametrize(
    ("args", "rounds", "usual", "count"),
    [
        ("", 8, 5, 5),  # 4 rounds, in which everybody is visited twice
        ("", 8, 2, 3),  # 10 visits at least
        ("", 8, 1, 3),
        ("", 2, 1, 10),  # one round
        ("iterations=2", 8, 5, 5),
        ("iterations=2", 8, 1, 5),
        ("iterations=1", 8, 5, 3),
        ("iterations=3", 8, 1, 8),
        ("iterations=50", 8, 1, 125),  # more than there are means all
    ],
)
def test_everybody_has_a_turn_in_stage_1(args: str, rounds: int, usual: int, count: int) -> None:
    half = _half(args, rounds)
    first = half.choose(1, CLIENTS, usual)
    assert first is not None
    assert first.count == count
    length, half = rounds // 2, _half(args, rounds)
    visits = Counter(k for r in range(1, length + 1) for k in _round(half, r, usual=usual))
    assert set(visits) == set(CLIENTS)
    assert max(visits.values()) - min(visits.values()) <= 1


def test_stages_begin_and_end_where_they_should(caplog: pytest.LogCaptureFixture) -> None:
    half = _half()
    stages, sampled = [], []
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 9):
            sampled.append(_round(half, server_round))
            stages.append(half.tell(0)["stage"])
    assert stages == [1, 1, 1, 1, 2, 2, 3, 3]
    assert [len(one) for one in sampled] == [5] * 8
    for first in (0, 2):
        assert sorted(sampled[first] + sampled[first + 1]) == list(CLIENTS)
    assert not {*NOISY} & {*sampled[4], *sampled[5]}
    assert {*NOISY} & {*sampled[6], *sampled[7]}
    found = "noisy clients found by the dimension of their predictions: that of 3 of 10 clients is 2.74 times"
    assert caplog.messages == [
        f"Round 2: {found} that of the others.",
        "Noisy clients: 2, 5, 7; noisy-clients.json lists all clients.",
        f"Round 4: {found} that of the others.",
        "Noisy clients: 2, 5, 7; noisy-clients.json lists all clients.",
        "Stage 2 begins in round 5.",
        "Stage 3 begins in round 7.",
    ]


def test_a_run_that_is_made_longer_does_not_go_back() -> None:
    half, longer = _half(), _half(rounds=40)
    for server_round in range(1, 9):
        _round(half, server_round)
    longer.load_state(half.state())
    longer.before_round(9, ArrayRecord(), lambda action, arrays: {})
    assert longer.tell(2)["stage"] == 3


# --- judgements


def test_nobody_is_judged_before_all_have_been_visited() -> None:
    half = _half()
    assert half.noisy_clients() is None
    _round(half, 1)
    assert (_tags(half), half.noisy_clients(), scores_of(judgement(half)), half.wrong_labels()) == ([], None, {}, {})
    assert half.tell(2) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 0}
    _round(half, 2)
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
    half = _half()
    told = []
    for server_round in range(1, 8):
        _round(half, server_round)
        told.append([half.tell(2)[name] for name in ("stage", "noisy", "delta", "judgements")])
    assert told[3:] == [[1, True, 0.6, 2], [2, True, 0.0, 2], [2, True, 0.0, 2], [3, True, 0.0, 2]]


def test_a_turn_that_ends_within_a_round_is_judged_then_and_the_end_of_stage_1_anyway() -> None:
    """Four of ten clients a round: turns end in rounds 3, 5 and 8, and stage 1 in round 7."""
    half = _half("preprocessing-rounds=7", rounds=10)
    judgements = []
    for server_round in range(1, 8):
        _round(half, server_round, usual=4)
        judgements.append(half.tell(0)["judgements"])
    assert judgements == [0, 0, 1, 1, 2, 2, 3]


def test_a_client_that_was_visited_twice_is_compared_by_its_mean() -> None:
    """Client 0 has a sum of 6, like none of the clean ones; by its mean of 3 it is one of them."""
    half = _half("preprocessing-rounds=3", rounds=8)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {0: _reply(0)})
    half.heard(2, {0: _reply(0)})
    half.heard(3, {k: _reply(k) for k in CLIENTS if k})
    assert _tags(half) == list(NOISY)
    assert half.tell(0)["noisy"] is False


def test_tags_change_when_clients_look_otherwise() -> None:
    """Client 2 was a false alarm: its mean comes down to that of the others."""
    half = _half("iterations=4", rounds=8)
    later = {**LIDS, 2: 0.3}
    tags = []
    for server_round in range(1, 5):  # ten clients a round
        _round(half, server_round, lids=LIDS if server_round == 1 else later)
        tags.append(_tags(half))
    assert tags[0] == [2, 5, 7]
    assert tags[-1] == [5, 7]
    assert half.tell(2) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 4}


def test_clients_that_are_alike_are_all_clean(caplog: pytest.LogCaptureFixture) -> None:
    half, rng = _half(), np.random.default_rng(3)
    alike = {k: float(value) for k, value in enumerate(rng.normal(5, 0.3, 10))}
    with caplog.at_level(logging.WARNING, "flwr"):
        for server_round in range(1, 5):
            _round(half, server_round, lids=alike)
    assert _tags(half) == []
    assert half.noisy_clients() == dict.fromkeys(CLIENTS, False)
    start = "no client stands out by the dimension of its predictions, and all count as clean: "
    assert [message.partition(start)[0] for message in caplog.messages] == ["Round 2: ", "Round 4: "]
    assert scores_of(judgement(half)) == {"noisy-clients": 0.0, "noisy-clients-recall": 0.0}


def test_of_equal_judgements_the_first_and_the_last_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A round in which all clients train ends a turn, so that each of the ten rounds of stage 1 has a judgement."""
    half = _half(rounds=20)
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 11):
            _round(half, server_round, lids=dict.fromkeys(CLIENTS, 5.0), usual=10)
    assert half.tell(0)["judgements"] == 10
    assert [message.partition(":")[0] for message in caplog.messages] == ["Round 1", "Round 10"]


def test_a_judgement_that_changes_is_logged_also_after_a_resume(caplog: pytest.LogCaptureFixture) -> None:
    half = _half(rounds=20)
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 7):
            resumed = _half(rounds=20)
            resumed.load_state(half.state())
            half = resumed
            lids = LIDS if server_round > 2 else dict.fromkeys(CLIENTS, 5.0)
            _round(half, server_round, lids=lids, usual=10)
    assert [message.partition(":")[0] for message in caplog.messages] == ["Round 1", "Round 4", "Noisy clients"]


def test_the_log_says_how_many_could_not_be_judged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flwr"):
        _round(_half(rounds=2), 1, silent=[3, 4, 6, 8, 9], usual=10)
        _round(_half(rounds=2), 1, usual=10)
    text = "5 of 10 clients could not be judged: they have not answered, or hold too few images."
    assert [message for message in caplog.messages if "judged" in message] == [text]


def test_a_client_that_never_answered_is_not_judged_counts_as_clean_and_may_fine_tune() -> None:
    half = _half()
    for server_round in range(1, 5):
        _round(half, server_round, silent=[5])
    assert half.noisy_clients() == {k: k in (2, 7) for k in CLIENTS if k != 5}
    assert half.tell(5) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 1}  # no turn ever ended
    half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert half.choose(5, CLIENTS, 5) == Choice([0, 1, 3, 4, 5, 6, 8, 9], 5)


def test_a_client_with_too_few_images_is_not_judged() -> None:
    half = _half(rounds=2)
    half.choose(1, CLIENTS, 5)
    replies = {k: _reply(k) for k in CLIENTS}
    del replies[5]["lid"], replies[5]["lid-error"]
    half.heard(1, replies)
    assert _tags(half) == [2, 7]
    assert 5 not in (half.noisy_clients() or {})


@pytest.mark.parametrize("missing", ["lid", "lid-error"])
def test_a_client_that_sends_half_of_it_is_not_judged(missing: str) -> None:
    half = _half(rounds=2)
    half.choose(1, CLIENTS, 5)
    replies = {k: _reply(k) for k in CLIENTS}
    del replies[5][missing]
    half.heard(1, replies)
    assert 5 not in (half.noisy_clients() or {})


def test_errors_are_averaged_over_visits_and_decide() -> None:
    """Of 0.05 and 0.4 times the dimension, mean 0.225; clients 2, 5 and 7 are 1.005 above the others as logarithms, and
    6.892 errors (as in test_two_groups) may be chance: 0.146 or more."""
    half = _half("preprocessing-rounds=2", rounds=8)
    tags = []
    for server_round, error in ((1, 0.05), (2, 0.4)):
        half.choose(server_round, CLIENTS, 10)
        half.heard(server_round, {k: _reply(k, {"lid-error": error * LIDS[k]}) for k in CLIENTS})
        tags.append(_tags(half))
    assert tags == [list(NOISY), []]


def test_the_papers_rule_calls_the_higher_group_noisy_however_alike_all_are(caplog: pytest.LogCaptureFixture) -> None:
    half = _half("groups='always'", rounds=2)
    half.choose(1, CLIENTS, 5)
    with caplog.at_level(logging.INFO, "flwr"):
        half.heard(1, {k: _reply(k, {"lid": 3.05 if k in NOISY else 3.0 + 0.001 * k}) for k in CLIENTS})
    assert _tags(half) == list(NOISY)
    assert caplog.messages[0].endswith("the higher of two groups, however alike they are, has 3 of 10.")


def test_if_nobody_answers_nobody_is_judged() -> None:
    half = _half(rounds=2)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {})
    assert half.noisy_clients() is None
    assert scores_of(judgement(half)) == {}
    half.before_round(2, ArrayRecord(), lambda action, arrays: {})
    assert half.tell(0)["stage"] == 3


def test_a_client_that_comes_back_gets_its_turn_first() -> None:
    """Client 3 is away in round 1; turns end without those who are away."""
    half = _half(rounds=12)
    here = [k for k in CLIENTS if k != 3]
    for server_round in (1, 2):
        choice = half.choose(server_round, here, 5)
        assert choice is not None
        half.heard(server_round, {k: _reply(k) for k in sorted(choice.clients)[: choice.count]})
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
    half = _half(rounds=2)
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: _reply(k, values if k == 2 else None) for k in CLIENTS})
    assert half.wrong_labels().get(2) == share
    assert ("noisy-clients-recall" in scores_of(judgement(half))) == (share is not None)


# --- who fine-tunes


def test_a_noisy_client_with_a_small_share_fine_tunes() -> None:
    half = _half("clean-share=0.2")
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: _reply(k, {"noisy-share": 0.2} if k == 5 else None) for k in CLIENTS})
    half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert half.choose(5, CLIENTS, 5) == Choice([0, 1, 3, 4, 5, 6, 8, 9], 5)
    assert half.choose(5, [2, 3, 7], 5) == Choice([3], 5)  # all that there are
    assert half.choose(5, [2, 7], 5) is None  # nobody is clean: everybody


def test_if_nobody_is_clean_all_fine_tune(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    everybody = Groups(np.ones(10, dtype=bool), "all")
    monkeypatch.setattr("methods.fedcorr_on_server.two_groups", lambda *_: everybody)
    half = _half()
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: _reply(k, {"noisy-share": 0.5}) for k in CLIENTS})
    caplog.clear()
    with caplog.at_level(logging.WARNING, "flwr"):
        half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert caplog.messages == ["Nobody is clean: all clients are sampled in stage 2."]
    assert half.choose(5, CLIENTS, 5) is None


# --- resumed, lied to, refused


def test_a_half_that_is_resumed_after_any_round_goes_on_as_the_other() -> None:
    half = _half()
    for server_round in range(1, 9):
        other = _half()
        state = half.state()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        other.load_state(state)
        assert _round(other, server_round) == _round(half, server_round)
        for k in CLIENTS:
            assert other.tell(k) == half.tell(k)
        assert (other.noisy_clients(), other.wrong_labels()) == (half.noisy_clients(), half.wrong_labels())
        assert other.state().keys() == half.state().keys()
        assert all(np.array_equal(value, half.state()[name], equal_nan=True) for name, value in other.state().items())
    fresh = _half()
    fresh.load_state({})
    assert fresh.tell(2) == {"stage": 1, "noisy": False, "delta": 0.0, "judgements": 0}


@given(
    st.lists(
        st.dictionaries(
            st.integers(0, 9),
            st.fixed_dictionaries(
                {"noisy-share": st.floats(0, 1), "images-known": st.integers(0, 9), "labels-right": st.integers(0, 9)},
                optional={"lid": st.floats(0, LARGEST), "lid-error": st.floats(0, LARGEST_ERROR)},
            ),
        ),
        max_size=6,
    )
)
def test_whatever_clients_send_the_server_goes_on(rounds: list[dict[int, dict[str, float]]]) -> None:
    half = _half(rounds=10)
    for server_round, replies in enumerate(rounds, 1):
        half.before_round(server_round, ArrayRecord(), lambda action, arrays: {})
        half.choose(server_round, CLIENTS, 3)
        half.heard(server_round, {k: {**reply, "num-examples": 9} for k, reply in replies.items()})
        assert all(np.isfinite(value) for value in scores_of(judgement(half)).values())
        assert all(0 <= share <= 1 for share in half.wrong_labels().values())
        for k in CLIENTS:
            assert 0 <= half.tell(k)["delta"] <= 1  # type: ignore[operator]


def test_stages_that_do_not_fit_are_refused_before_the_run_starts() -> None:
    sentence = "stages 1 and 2 take at least 8 rounds, but 'num-server-rounds' is 8; they must be fewer"
    with pytest.raises(ConfigError, match=sentence):
        _half("preprocessing-rounds=5 fine-tuning-rounds=3")
    values = {
        "method": "fedcorr",
        "method-args": "preprocessing-rounds=5 fine-tuning-rounds=3",
        "num-server-rounds": 8,
    }
    assert [sentence in problem for problem in examine(values)[1]] == [True]
