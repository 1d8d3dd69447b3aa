"""The server half of methods in two stages: when it asks, whom it tags, what it tells, and how it resumes."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from config.run_config import ConfigError, RunConfig
from learning.server_half import ServerHalf
from methods import METHODS, build_method
from methods.noisy_clients import detect
from methods.two_stages import BEGAN, NOISY, STAGE, TwoStages

CLASSES = 4


def _half(args: str = "", rounds: int = 12, method: str = "fednoro") -> ServerHalf:
    config = RunConfig(method=method, method_args=args, num_server_rounds=rounds)
    half = build_method(config).on_server()
    half.prepare(config, None)  # type: ignore[arg-type]
    return half


def _answer(mean: float, wrong: float, images: int = 200) -> dict[str, Any]:
    """A client whose losses have this mean in every class, and a deviation of 0.5."""
    counts = np.full(CLASSES, images / CLASSES)
    return {
        "num-examples": images,
        "class-counts": counts.tolist(),
        "class-losses": (counts * mean).tolist(),
        "class-squares": (counts * (mean**2 + 0.25)).tolist(),
        "images-known": images,
        "labels-wrong": round(wrong * images),
    }


class Clients:
    """Ten of them, of which 2, 5 and 7 have more loss than the others; counts how often they are asked."""

    def __init__(self, noisy: float = 2.5) -> None:
        self.asked: list[str] = []
        self._answers = {
            k: _answer(noisy if k in (2, 5, 7) else 0.5 + 0.01 * k, 0.6 * (k in (2, 5, 7))) for k in range(10)
        }

    def __call__(self, action: str, arrays: ArrayRecord) -> Mapping[int, Mapping[str, Any]]:
        self.asked.append(action)
        return self._answers


@pytest.mark.parametrize("method", [name for name, cls in METHODS.items() if issubclass(cls, TwoStages)])
def test_clients_are_asked_once_before_the_first_round_of_stage_2(method: str) -> None:
    half, clients = _half("warm-up-rounds=2", method=method), Clients()
    for server_round in (1, 2):
        half.before_round(server_round, ArrayRecord(), clients)
        assert half.tell(2) == {STAGE: 1, NOISY: False}
        assert half.metrics(server_round) == {}
        assert half.state() == {}
    assert clients.asked == []
    for server_round in (3, 4):
        half.before_round(server_round, ArrayRecord(), clients)
    assert clients.asked == ["class_losses"]
    assert [k for k in range(10) if half.tell(k)[NOISY]] == [2, 5, 7]
    assert half.tell(3) == {STAGE: 2, NOISY: False, BEGAN: 3}
    scores = {"noisy-clients": 3.0, "noisy-clients-precision": 1.0, "noisy-clients-recall": 1.0}
    assert half.metrics(3) == scores
    assert half.metrics(2) == {}  # the round that is still being evaluated when the next one is prepared


def test_a_resumed_server_asks_nobody_again() -> None:
    half, clients = _half(), Clients()
    half.before_round(3, ArrayRecord(), clients)
    other, others = _half(), Clients()
    other.load_state(half.state())
    other.before_round(4, ArrayRecord(), others)
    assert others.asked == []
    assert [other.tell(k) for k in range(10)] == [half.tell(k) for k in range(10)]
    assert other.metrics(4) == half.metrics(4)
    fresh = _half()
    fresh.load_state({})
    assert fresh.tell(2) == {STAGE: 1, NOISY: False}


def test_a_half_says_whom_it_judges_and_how_right_that_is() -> None:
    """Also one that is resumed; clients that do not answer were not judged."""
    half, clients, other = _half(), Clients(), _half()
    assert half.noisy_clients() is None
    half.before_round(3, ArrayRecord(), lambda action, arrays: {k: v for k, v in clients("", arrays).items() if k != 5})
    other.load_state(half.state())
    for server in (half, other):
        assert server.noisy_clients() == {k: k in (2, 7) for k in range(10) if k != 5}
        assert server.wrong_labels() == {k: 0.6 if k in (2, 7) else 0.0 for k in range(10) if k != 5}


def test_a_share_of_wrong_labels_is_known_for_those_whose_true_labels_all_are() -> None:
    answers = {k: {**v, "images-known": 199 if k == 0 else 200} for k, v in Clients()("", ArrayRecord()).items()}
    half, other = _half(), _half()
    half.before_round(3, ArrayRecord(), lambda action, arrays: answers)
    other.load_state(half.state())
    for server in (half, other):
        assert sorted(server.wrong_labels()) == list(range(1, 10))
        assert sorted(server.noisy_clients() or {}) == list(range(10))


def test_who_trained_last_is_remembered_until_stage_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a server that is resumed."""
    told = []

    def spy(*losses: Any, trained: Any, **others: Any) -> Any:
        told.append(trained.tolist())
        return detect(*losses, trained=trained, **others)

    monkeypatch.setattr("methods.two_stages.detect", spy)
    half, other = _half(), _half()
    half.heard(1, {0: {}, 5: {}})
    half.heard(2, {4: {}, 8: {}})
    other.load_state(half.state())
    for server in (half, other):
        server.before_round(3, ArrayRecord(), Clients())
        server.heard(3, {1: {}})
        assert "trained" not in server.state()
    assert told == [[k in (4, 8) for k in range(10)]] * 2


def test_the_log_reports_when_no_client_stands_out(caplog: pytest.LogCaptureFixture) -> None:
    half = _half()
    with caplog.at_level(logging.INFO, "flwr"):
        half.before_round(3, ArrayRecord(), Clients(noisy=0.55))
    (message,) = caplog.messages
    assert message.startswith("Stage 2 begins in round 3. No client stands out, and all count as clean: ")
    assert "clients='all-noisy'" in message
    assert not any(half.tell(k)[NOISY] for k in range(10))


def test_clients_that_do_not_answer_count_as_clean() -> None:
    half, clients = _half(), Clients()
    half.before_round(
        3, ArrayRecord(), lambda action, arrays: {k: v for k, v in clients(action, arrays).items() if k != 5}
    )
    assert [k for k in range(10) if half.tell(k)[NOISY]] == [2, 7]


def test_a_round_in_which_nobody_answers_finds_nobody(caplog: pytest.LogCaptureFixture) -> None:
    half = _half()
    with caplog.at_level(logging.WARNING, "flwr"):
        half.before_round(3, ArrayRecord(), lambda action, arrays: {})
    assert caplog.messages == ["Stage 2 begins in round 3. No client answered, and all count as clean."]
    assert half.tell(2) == {STAGE: 2, NOISY: False, BEGAN: 3}


def test_unknown_truth_is_not_scored() -> None:
    clients = Clients()
    answers = {k: {**dict(v), "images-known": 199 if k == 0 else 200} for k, v in clients("", ArrayRecord()).items()}
    half = _half()
    half.before_round(3, ArrayRecord(), lambda action, arrays: answers)
    assert half.metrics(3) == {"noisy-clients": 3.0}


@pytest.mark.parametrize(("clients", "noisy"), [("all-noisy", True), ("all-clean", False)])
def test_tags_can_be_given_without_asking(clients: str, noisy: bool) -> None:
    half, asked = _half(f"clients='{clients}' warm-up-rounds=1"), Clients()
    half.before_round(2, ArrayRecord(), asked)
    assert asked.asked == []
    assert all(half.tell(k) == {STAGE: 2, NOISY: noisy, BEGAN: 2} for k in range(10))
    assert half.noisy_clients() is None


def test_a_stage_1_as_long_as_the_run_is_refused_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="warm-up-rounds to 12, but 'num-server-rounds' is 12"):
        _half("warm-up-rounds=12")
