"""The server half of a method chooses who may be sampled: with any strategy, with clients that are away, resumed."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from learning.server_half import Ask, Choice, ServerHalf
from methods import METHODS, build_method
from methods.ce import CE
from methods.noisy_clients import Detection
from server_app.attendance import Attendance
from server_app.grid import OrderedGrid
from server_app.stopping import RunStoppedError
from server_app.strategy import check_privacy, make_strategy
from tests.fakes import CutOffError, InProcessGrid, cut_off_in, outcome_of, partitions, rounds_of, run_in_process
from tests.server_app.test_attendance import MEMBER, Leaving

LISTING = "tests.server_app.test_chosen_clients:Listing"
Choose = Callable[[int, Sequence[int], int], Choice | None]


@dataclass(frozen=True)
class Picky(CE):
    """Cross-entropy on clients that a test chooses."""

    def on_server(self) -> "Picking":
        return Picking()


class Picking(ServerHalf):
    """Asks `rule`, a class attribute that a test sets; remembers who has replied."""

    rule: Choose = staticmethod(lambda server_round, clients, usual: None)

    def __init__(self) -> None:
        self.trained: list[int] = []

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        return type(self).rule(server_round, [k for k in clients if k not in self.trained], usual)

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        self.trained += sorted(replies)

    def state(self) -> dict[str, np.ndarray]:
        return {"trained": np.array(self.trained, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.trained = state["trained"].tolist()


class Listing(FedAvg):
    """A strategy of one's own: it samples three of the nodes that it is shown, and has no fraction."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": config})
        nodes = list(grid.get_node_ids())
        return [Message(content, node, "train") for node in random.sample(nodes, min(3, len(nodes)))]


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Choose], None]:
    monkeypatch.setitem(METHODS, "ce", Picky)
    return lambda rule: monkeypatch.setattr(Picking, "rule", staticmethod(rule))


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "clients": 6, "method": "ce", "model": "cnn", "image_size": 16, "num_server_rounds": 3, "fraction_train": 0.5,
    }  # fmt: skip
    return run_in_process(out, data_dir=str(sample), **{**settings, **changes})


def _sampled(run_dir: Path) -> list[list[int]]:
    return [sorted(line["sampled-partitions"]) for line in rounds_of(run_dir)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "multikrum", "rfa", "fedtrimmedavg", LISTING])
def test_only_the_chosen_ones_are_sampled(tmp_path: Path, tiny_sample: Path, choosing: Any, strategy: str) -> None:
    """Three of those four that have an even number or are client 5, and after round 1 all."""
    usual_ones = []

    def rule(server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        usual_ones.append(usual)
        return Choice({0, 2, 4, 5}, usual) if server_round == 1 else None

    choosing(rule)
    sampled = _sampled(_run(tmp_path, tiny_sample, strategy=strategy))
    assert [len(one) for one in sampled] == [3, 3, 3]
    assert set(sampled[0]) < {0, 2, 4, 5}
    assert set(usual_ones) == {3}


@pytest.mark.parametrize("strategy", ["fedavg", "multikrum", "rfa"])
@pytest.mark.parametrize("count", [6, 1000])
def test_every_client_can_be_visited_once_in_a_round(
    tmp_path: Path, tiny_sample: Path, choosing: Any, strategy: str, count: int
) -> None:
    """In round 2 alone; the others sample as many as always."""
    choosing(lambda server_round, clients, usual: Choice(range(6), count) if server_round == 2 else None)
    sampled = _sampled(_run(tmp_path, tiny_sample, strategy=strategy, fraction_train=0.5))
    assert [len(one) for one in sampled] == [3, 6, 3]


@pytest.mark.parametrize(("count", "sampled"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 6)])
def test_exactly_so_many_are_sampled(
    tmp_path: Path, tiny_sample: Path, choosing: Any, count: int, sampled: int
) -> None:
    choosing(lambda server_round, clients, usual: Choice(range(6), count))
    settings = {"clients": 8, "fraction_train": 0.15, "num_server_rounds": 1}
    assert [len(one) for one in _sampled(_run(tmp_path, tiny_sample, **settings))] == [sampled]


@pytest.mark.parametrize("clients", range(1, 60))
def test_the_fraction_gives_every_count(clients: int) -> None:
    """Flower samples int(clients * fraction)."""
    grid, strategy = _grid(clients)
    attendance = Attendance(grid, _members(grid), strategy)
    for count in range(1, clients + 1):
        with attendance.sampling(Choice(range(clients), count)):
            config = ConfigRecord({})
            assert len(list(strategy.configure_train(1, ArrayRecord(), config, grid))) == count


def _grid(clients: int, **config: Any) -> tuple[OrderedGrid, Any]:
    grid = InProcessGrid(client_app, partitions(clients))
    return OrderedGrid(grid, list(grid.nodes)), make_strategy(RunConfig(strategy="fedavg", **config))


def _members(grid: OrderedGrid) -> list[Any]:
    return [replace(MEMBER, node_id=node, partition_id=k) for k, node in enumerate(grid._node_ids)]


def test_the_strategy_is_as_before_afterwards_whatever_happens() -> None:
    grid, strategy = _grid(6, strategy_args="min-train-nodes=4 min-available-nodes=5", fraction_train=0.7)
    attendance = Attendance(grid, _members(grid), strategy)
    before = dict(vars(strategy))
    with attendance.sampling(Choice({1, 3}, 1)):
        assert list(grid.get_node_ids()) == [grid._node_ids[1], grid._node_ids[3]]
        assert (strategy.min_train_nodes, strategy.min_available_nodes) == (2, 2)
    assert vars(strategy) == before
    with pytest.raises(ZeroDivisionError), attendance.sampling(Choice({1, 3}, 1)):
        raise ZeroDivisionError
    assert vars(strategy) == before
    assert len(list(grid.get_node_ids())) == 6


@pytest.mark.parametrize("message_number", [2, 4, 5, 6])
def test_a_run_that_is_cut_off_chooses_the_same_clients(
    tmp_path: Path, tiny_sample: Path, choosing: Any, message_number: int
) -> None:
    """Those who have not trained, of whom the strategy draws two."""
    choosing(lambda server_round, clients, usual: Choice(clients, usual))
    settings = {"fraction_train": 1 / 3}
    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, **settings)
    assert sorted(chain(*_sampled(undisturbed))) == list(range(6))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number), resume="auto", **settings)
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto", **settings)) == outcome_of(undisturbed)


@pytest.mark.parametrize("choice", [Choice([], 3), Choice([17], 3), Choice(range(6), 0)])
def test_a_choice_that_leaves_nobody_ends_the_run_with_one_sentence(
    tmp_path: Path, tiny_sample: Path, choosing: Any, choice: Choice
) -> None:
    choosing(lambda server_round, clients, usual: choice if server_round == 2 else None)
    with pytest.raises(RunStoppedError) as caught:
        _run(tmp_path, tiny_sample)
    assert str(caught.value).startswith(
        "round 2: 'method' 'ce' leaves none of 6 connected clients to be sampled; its 'method-args' say whom it leaves"
        " out."
    )


# What makes these two easy to get wrong: the rounds of a run without evaluation on clients overlap.
IN_TURNS = "warm-up-rounds=4 first-stage-clients='in-turns'"
CLEAN = "warm-up-rounds=1 second-stage-clients='clean'"


@pytest.mark.parametrize("strategy", ["auto", "fedavg", "multikrum", LISTING])
def test_in_turns_all_train_before_anybody_trains_again(tmp_path: Path, tiny_sample: Path, strategy: str) -> None:
    settings = {"method": "fednoro", "method_args": IN_TURNS, "strategy": strategy, "num_server_rounds": 5}
    sampled = _sampled(_run(tmp_path, tiny_sample, **settings))
    assert sampled[0] + sampled[1] != sampled[2] + sampled[3]
    for first in (0, 2):
        assert sorted(sampled[first] + sampled[first + 1]) == list(range(6))


@pytest.mark.parametrize("method", ["fednoro", "fedelc"])
@pytest.mark.parametrize("message_number", [3, 5, 8])
def test_turns_are_resumed(tmp_path: Path, tiny_sample: Path, method: str, message_number: int) -> None:
    """With eight clients and three a round, turns end in the middle of rounds."""
    args = f"{IN_TURNS} second-stage-clients='clean'"
    settings = {"clients": 8, "method": method, "method_args": args, "num_server_rounds": 5, "fraction_train": 0.4}
    undisturbed = _run(tmp_path / "undisturbed", tiny_sample, **settings)
    counts = Counter(chain(*_sampled(undisturbed)[:4]))
    assert (sum(counts.values()), set(counts.values())) == (12, {1, 2})
    assert len({*chain(*_sampled(undisturbed)[:3])}) == 8
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number), resume="auto", **settings)
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto", **settings)) == outcome_of(undisturbed)


def _real_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))
    monkeypatch.setattr(OrderedGrid, "pause", lambda grid, seconds: None)
    monkeypatch.setattr("server_app.attendance.RETURN_SECONDS", 0.2)
    monkeypatch.setattr("server_app.attendance.ALONE_SECONDS", 0.4)


def test_a_client_that_is_away_gets_its_turn_when_it_is_back(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client 1 is away in rounds 1 to 3, and client 4 never trains; min-train-nodes asks for more than the fraction."""
    _real_nodes(monkeypatch)
    leaving = Leaving(monkeypatch, {2: {1}, 3: {1}})

    def handler(message: Message, context: Context) -> Message:
        reply = leaving(message, context)
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 4:
            reply.content.array_records["arrays"].clear()
        return reply

    gather = Attendance.gather

    def gathering(attendance: Attendance, server_round: int) -> None:
        if server_round == 1:  # it has answered the roll call
            leaving.now = {1}
        gather(attendance, server_round)

    monkeypatch.setattr(Attendance, "gather", gathering)
    run_dir = _run(
        tmp_path, tiny_sample, handler=handler, method="fednoro", method_args=IN_TURNS, strategy="fedavg",
        strategy_args="min-train-nodes=3", fraction_train=0.2, num_server_rounds=5, min_reply_fraction=0.0,
    )  # fmt: skip
    sampled = _sampled(run_dir)[:4]
    assert [len(one) for one in sampled] == [3, 3, 3, 3]
    assert [1 in one for one in sampled] == [False, False, False, True]
    assert {0, 2, 3, 5} <= set(sampled[0] + sampled[1])
    assert all(4 in one for one in sampled[1:])


@pytest.mark.parametrize(
    ("strategy", "fraction", "count"),
    [("auto", 1 / 3, 2), ("fedavg", 1.0, 4), ("multikrum", 0.5, 3), ("rfa", 0.7, 4), (LISTING, 0.5, 3)],
)
def test_clean_clients_alone_are_sampled_in_the_second_stage(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, fraction: float, count: int
) -> None:
    """As many as always if there are so many, else all of them."""
    monkeypatch.setattr("methods.two_stages.detect", _found(2, 5))
    settings = {"method": "fednoro", "method_args": CLEAN, "strategy": strategy, "fraction_train": fraction}
    sampled = _sampled(_run(tmp_path, tiny_sample, **settings))[1:]
    assert [len(one) for one in sampled] == [count, count]
    assert not {2, 5} & {k for one in sampled for k in one}


def _found(*noisy: int) -> Any:
    """Stands in for `detect`: these clients are noisy."""

    def detect(losses: Any, variances: Any, counts: Any, **values: Any) -> Detection:
        return Detection(np.isin(np.arange(len(losses)), noisy), True, 1.0, 0.1, "Found.")

    return detect


def test_without_a_clean_client_the_run_stops_with_one_sentence_and_resumes(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients 0 and 3 alone are clean, and both are away in round 3."""
    monkeypatch.setattr("methods.two_stages.detect", _found(1, 2, 4, 5))
    settings: dict[str, Any] = {"method": "fednoro", "method_args": CLEAN, "strategy": "fedavg", "resume": "auto"}
    with pytest.raises(RunStoppedError) as caught, pytest.MonkeyPatch.context() as away:
        _real_nodes(away)
        _run(tmp_path, tiny_sample, handler=Leaving(away, {3: {0, 3}}), **settings)
    assert "round 3: 'method' 'fednoro' leaves none of 4 connected clients to be sampled; its" in str(caught.value)
    run_dir = _run(tmp_path, tiny_sample, **settings)
    assert _sampled(run_dir)[1:] == [[0, 3], [0, 3]]


def test_if_all_are_noisy_all_are_sampled(tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = f"{CLEAN} clients='all-noisy'"
    with caplog.at_level(logging.WARNING, "flwr"):
        run_dir = _run(tmp_path, tiny_sample, method="fedelc", method_args=args, fraction_train=1.0)
    assert [len(one) for one in _sampled(run_dir)] == [6, 6, 6]
    assert caplog.messages.count("Nobody is clean: all clients are sampled in stage 2.") == 1


class Asking(ServerHalf):
    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        ask("class_losses", arrays)


def test_privacy_does_not_cover_a_choice_or_a_question() -> None:
    config = RunConfig(privacy="server-fixed", privacy_args="noise-multiplier=1 clipping-norm=1")
    with pytest.raises(ConfigError) as caught:
        check_privacy(config, Picky(), Picking())
    assert str(caught.value) == (
        "run config: 'privacy' is 'server-fixed', but 'method' is 'ce', which chooses clients, and the guarantee is"
        " that of uniform sampling; 'privacy' must be none, or 'method' another one."
    )
    with pytest.raises(ConfigError, match="server half may ask clients for numbers without noise before a round"):
        check_privacy(config, Picky(), Asking())
    check_privacy(config, build_method(config), ServerHalf())


def test_when_all_chosen_ones_have_left_nobody_is_sampled_instead_of_everybody() -> None:
    """They may leave between the method's choice and the strategy's draw."""
    grid = OrderedGrid(InProcessGrid(client_app, partitions(3)), [7, 40510, 15477])
    assert len(list(grid.get_node_ids())) == 3
    with grid.only([]):
        assert list(grid.get_node_ids()) == []
    members = [replace(MEMBER, node_id=node_id, partition_id=k) for k, node_id in enumerate([7, 40510, 15477])]
    strategy = FedAvg(min_train_nodes=1, min_available_nodes=1)
    with Attendance(grid, members, strategy).sampling(Choice([99], 2)):
        assert list(grid.get_node_ids()) == []
