"""The server half of FedCorr: turns, stages, who fine-tunes, and how it resumes."""

import logging
from collections import Counter

import numpy as np
import pytest
from flwr.app import ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from config.check import examine
from config.run_config import ConfigError
from learning.server_half import Choice
from methods.dimension import LARGEST
from methods.fedcorr import LARGEST_ERROR
from methods.two_groups import Groups
from server_app.rounds import judgement, scores_of
from tests.methods.fedcorr_rounds import CLIENTS, NOISY, new_half, one_round, reply_of

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
    half = new_half(args, rounds)
    first = half.choose(1, CLIENTS, usual)
    assert first is not None
    assert first.count == count
    length, half = rounds // 2, new_half(args, rounds)
    visits = Counter(k for r in range(1, length + 1) for k in one_round(half, r, usual=usual))
    assert set(visits) == set(CLIENTS)
    assert max(visits.values()) - min(visits.values()) <= 1


def test_stages_begin_and_end_where_they_should(caplog: pytest.LogCaptureFixture) -> None:
    half = new_half()
    stages, sampled = [], []
    with caplog.at_level(logging.INFO, "flwr"):
        for server_round in range(1, 9):
            sampled.append(one_round(half, server_round))
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
    half, longer = new_half(), new_half(rounds=40)
    for server_round in range(1, 9):
        one_round(half, server_round)
    longer.load_state(half.state())
    longer.before_round(9, ArrayRecord(), lambda action, arrays: {})
    assert longer.tell(2)["stage"] == 3


# --- who fine-tunes


def test_a_noisy_client_with_a_small_share_fine_tunes() -> None:
    half = new_half("clean-share=0.2")
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: reply_of(k, {"noisy-share": 0.2} if k == 5 else None) for k in CLIENTS})
    half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert half.choose(5, CLIENTS, 5) == Choice([0, 1, 3, 4, 5, 6, 8, 9], 5)
    assert half.choose(5, [2, 3, 7], 5) == Choice([3], 5)  # all that there are
    assert half.choose(5, [2, 7], 5) is None  # nobody is clean: everybody


def test_if_nobody_is_clean_all_fine_tune(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    everybody = Groups(np.ones(10, dtype=bool), "all")
    monkeypatch.setattr("methods.fedcorr_on_server.two_groups", lambda *_: everybody)
    half = new_half()
    half.choose(1, CLIENTS, 5)
    half.heard(1, {k: reply_of(k, {"noisy-share": 0.5}) for k in CLIENTS})
    caplog.clear()
    with caplog.at_level(logging.WARNING, "flwr"):
        half.before_round(5, ArrayRecord(), lambda action, arrays: {})
    assert caplog.messages == ["Nobody is clean: all clients are sampled in stage 2."]
    assert half.choose(5, CLIENTS, 5) is None


# --- resumed, lied to, refused


def test_a_half_that_is_resumed_after_any_round_goes_on_as_the_other() -> None:
    half = new_half()
    for server_round in range(1, 9):
        other = new_half()
        state = half.state()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        other.load_state(state)
        assert one_round(other, server_round) == one_round(half, server_round)
        for k in CLIENTS:
            assert other.tell(k) == half.tell(k)
        assert (other.noisy_clients(), other.wrong_labels()) == (half.noisy_clients(), half.wrong_labels())
        assert other.state().keys() == half.state().keys()
        assert all(np.array_equal(value, half.state()[name], equal_nan=True) for name, value in other.state().items())
    fresh = new_half()
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
    half = new_half(rounds=10)
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
        new_half("preprocessing-rounds=5 fine-tuning-rounds=3")
    values = {
        "method": "fedcorr",
        "method-args": "preprocessing-rounds=5 fine-tuning-rounds=3",
        "num-server-rounds": 8,
    }
    assert [sentence in problem for problem in examine(values)[1]] == [True]
