"""Who is sampled in the two stages: in turns in the first, and only clean clients in the second."""

import logging
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.server_half import Choice, ServerHalf
from methods import METHODS, build_method
from methods.turns import Turns
from methods.two_stages import TwoStages
from tests.methods.test_two_stages_on_server import Clients

TWO_STAGES = [name for name, cls in METHODS.items() if issubclass(cls, TwoStages)]


def _half(args: str, method: str = "fednoro", rounds: int = 30, seed: int = 1) -> ServerHalf:
    config = RunConfig(method=method, method_args=args, num_server_rounds=rounds, seed=seed)
    half = build_method(config).on_server()
    half.prepare(config, None)  # type: ignore[arg-type]
    return half


def _sampled(choice: Choice | None, rng: random.Random) -> list[int]:
    """As a strategy would."""
    assert choice is not None
    return rng.sample(sorted(choice.clients), min(choice.count, len(choice.clients)))


@pytest.mark.parametrize("method", TWO_STAGES)
def test_clients_are_left_to_the_strategy_unless_the_parameters_say_otherwise(method: str) -> None:
    half = _half("", method)
    assert half.choose(1, range(10), 3) is None
    half.heard(1, {0: {}, 4: {}})
    assert half.state().keys() == {"trained"}
    half.before_round(6, ArrayRecord(), Clients())
    assert half.choose(6, range(10), 3) is None


@pytest.mark.parametrize(("clients", "usual"), [(10, 3), (10, 5), (7, 2), (5, 5), (4, 1), (3, 9)])
def test_nobody_trains_again_before_everybody_has_trained(clients: int, usual: int) -> None:
    turns, rng, trained = Turns(), random.Random(3), Counter[int]()
    for server_round in range(40):
        choice = turns.choose(range(clients), usual, np.random.default_rng([1, server_round]))
        sampled = _sampled(choice, rng)
        assert len(sampled) == min(usual, clients)
        trained.update(sampled)
        turns.trained(sampled)
        assert max(trained.values()) - min(trained[k] for k in range(clients)) <= 1
    assert len(trained) == clients


def test_the_end_of_a_turn_is_filled_with_the_next_ones() -> None:
    turns = Turns()
    turns.trained(range(8))
    drawn = set()
    for server_round in range(30):
        choice = turns.choose(range(10), 4, np.random.default_rng([1, server_round]))
        assert (len(choice.clients), choice.count) == (4, 4)
        assert {8, 9} < set(choice.clients)
        drawn |= set(choice.clients)
        again = turns.choose(range(10), 4, np.random.default_rng([1, server_round]))
        assert choice == again  # a resumed run asks again
    assert drawn == set(range(10))


def test_who_fails_or_is_away_stays_among_the_first() -> None:
    """And takes one place in each round, not the whole round."""
    turns, rng = Turns(), random.Random(1)
    rounds = []
    for server_round in range(1, 13):
        here = [k for k in range(6) if k != 5 or server_round > 8]
        sampled = _sampled(turns.choose(here, 2, np.random.default_rng([1, server_round])), rng)
        rounds.append(sampled)
        turns.trained(k for k in sampled if k != 3)  # whose replies never count
    assert all(len(sampled) == 2 for sampled in rounds)
    assert all(3 in sampled for sampled in rounds[4:])
    assert [5 in sampled for sampled in rounds] == [False] * 8 + [True] + [False] * 3  # it does not catch up
    others = Counter(k for sampled in rounds for k in sampled if k not in (3, 5))
    assert max(others.values()) - min(others.values()) <= 1


def test_turns_survive_a_resume() -> None:
    args, rng = "first-stage-clients='in-turns' warm-up-rounds=9", random.Random(2)
    half, other = _half(args), _half(args)
    for server_round in range(1, 10):
        choice = half.choose(server_round, range(7), 2)
        assert choice is not None
        assert other.choose(server_round, range(7), 2) == choice
        half.heard(server_round, {key: {} for key in _sampled(choice, rng)})
        other = _half(args)
        other.load_state(half.state())
    assert set(half.state()) == {"turns", "trained"}
    half.before_round(10, ArrayRecord(), Clients())
    assert half.choose(10, range(7), 2) is None
    assert "turns" not in half.state()  # nobody needs it any more


def test_only_clean_clients_are_sampled_in_the_second_stage() -> None:
    half = _half("second-stage-clients='clean'")
    assert half.choose(1, range(10), 3) is None
    half.before_round(6, ArrayRecord(), Clients())
    assert half.choose(6, range(10), 3) == Choice([0, 1, 3, 4, 6, 8, 9], 3)
    assert half.choose(6, [2, 3, 5], 3) == Choice([3], 3)
    other = _half("second-stage-clients='clean'")
    other.load_state(half.state())
    assert other.choose(7, range(10), 3) == half.choose(7, range(10), 3)


def test_if_nobody_is_clean_all_are_sampled_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    half = _half("second-stage-clients='clean' clients='all-noisy'")
    with caplog.at_level(logging.INFO, "flwr"):
        half.before_round(6, ArrayRecord(), Clients())
        half.before_round(7, ArrayRecord(), Clients())
    assert half.choose(6, range(10), 3) is None
    assert caplog.messages[1:] == ["Nobody is clean: all clients are sampled in stage 2."]


def test_if_no_client_stands_out_all_are_clean() -> None:
    half = _half("second-stage-clients='clean'")
    half.before_round(6, ArrayRecord(), Clients(noisy=0.55))
    assert half.choose(6, range(10), 3) == Choice(list(range(10)), 3)


@pytest.mark.parametrize("method", TWO_STAGES)
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("first-stage-clients='all'", "first-stage-clients must be one of sampled, in-turns"),
        ("second-stage-clients='noisy'", "second-stage-clients must be one of all, clean"),
    ],
)
def test_bad_parameters_are_refused(method: str, args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_named("method", METHODS, method, args)


def test_other_seeds_fill_up_with_others() -> None:
    found: list[Any] = []
    for seed in range(8):
        half = _half("first-stage-clients='in-turns'", seed=seed)
        half.heard(1, {key: {} for key in range(9)})
        found.append(half.choose(2, range(10), 4))
    assert len({tuple(sorted(choice.clients)) for choice in found}) > 3
