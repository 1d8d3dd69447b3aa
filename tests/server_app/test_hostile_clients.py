"""One client sends nonsense, in every kind of message: the run ends as it would without it, and the log says so once.

`CLOTHING1M_FL_HOSTILE_REPLIES=200` sends that many of each kind.
"""

import logging
import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MessageType, RecordDict

from client_app.app import app as client_app
from config.run_config import RunConfig
from data.release import open_release
from messages import keys
from methods import METHODS, build_method, with_own_strategy
from methods.two_stages import TwoStages
from server_app.exchange import Exchange
from server_app.expected import Beside, Expected, Records, in_roll_call
from server_app.grid import OrderedGrid
from server_app.members import Member
from server_app.replies import problem_of_records
from server_app.roll_call import call_roll, roll_call_messages
from server_app.roll_call_answers import judge
from server_app.strategy import make_strategy
from server_app.traffic import Traffic
from task import build_model
from tests.fakes import InProcessGrid, outcome_of, partitions, run_in_process
from tests.malformed import malformed

REPLIES = int(os.environ.get("CLOTHING1M_FL_HOSTILE_REPLIES", "12"))
CLIENTS, LIAR = 4, 2
CLASSES, WIDTH = 14, 64
# In which clients send the most: they are noisy, and stage 2 has begun.
ARGS = {name: "warm-up-rounds=1 clients='all-noisy'" for name, cls in METHODS.items() if issubclass(cls, TwoStages)}
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"method": "ce", "fraction_evaluate": 1.0, "eval_split": "own", "holdout_fraction": 0.2},
    "fednoro": {"method": "fednoro", "method_args": "warm-up-rounds=1"},
    "dualoptim": {"method": "dualoptim", "method_args": "warm-up-rounds=1 clients='all-noisy'"},
    "private, clipped by the server": {
        "privacy": "server-adaptive", "privacy_args": "noise-multiplier=0.1 clipped-count-stddev=1",
    },
    "private, clipped by clients": {
        "privacy": "client-fixed", "privacy_args": "noise-multiplier=0.1 clipping-norm=0.5",
    },
}  # fmt: skip


class Liar:
    """The ClientApp of a federation in which one client's replies to one kind of message are spoilt."""

    def __init__(self, kind: str, spoil: Callable[[Message], Message]) -> None:
        self.kind, self.spoil = kind, spoil
        self.sent = 0

    def __call__(self, message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == self.kind and context.node_config[keys.PARTITION_ID] == LIAR:
            self.sent += 1
            return self.spoil(reply)
        return reply


def _spoiling(seed: int) -> Callable[[Message], Message]:
    rng = random.Random(seed)
    return lambda reply: malformed(reply, rng)


def _silenced(reply: Message) -> Message:
    question = Message(RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type)
    question.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return Message(Error(1, "out of order"), reply_to=question)


def _run(out: Path, sample: Path, handler: Liar, rounds: int, **values: Any) -> Any:
    settings = {"model": "cnn", "image_size": 16, "fraction_train": 1.0, "num_server_rounds": rounds, **values}
    return outcome_of(run_in_process(out, clients=CLIENTS, handler=handler, data_dir=str(sample), **settings))


@pytest.mark.parametrize("kind", ["train", "evaluate", "query.class_losses"])
@pytest.mark.parametrize("run", RUNS)
def test_the_run_ends_as_it_would_without_that_client(
    run: str, kind: str, tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if (kind == "evaluate") != (run == "plain") and kind != "train":
        pytest.skip("this run sends no such messages")
    if kind == "query.class_losses" and run != "fednoro":
        pytest.skip("this run sends no such messages")
    rounds = max(2, REPLIES // 2)  # what is left out is asked for once more
    with caplog.at_level(logging.WARNING):
        liar = Liar(kind, _spoiling(1))
        outcome = _run(tmp_path / "lied", tiny_sample, liar, rounds, **RUNS[run])
    lines = [line for line in caplog.messages if line.startswith(f"Reply left out: client {LIAR}: ")]
    assert len(lines) == liar.sent > 0
    assert all(line.isprintable() and len(line) < 500 for line in caplog.messages)
    assert outcome == _run(tmp_path / "silent", tiny_sample, Liar(kind, _silenced), rounds, **RUNS[run])


KINDS: dict[str, Callable[[Expected, Member], Records]] = {
    "query.default": lambda expected, member: in_roll_call(),
    "train.default": lambda expected, member: expected.in_training(member, expected.half.tell(member.partition_id)),
    "evaluate.default": lambda expected, member: expected.in_evaluation(member),
}


def test_every_handler_of_the_client_app_has_its_expectations() -> None:
    queries = {
        f"query.{action}" for name in METHODS for action in _expected(RunConfig(method=name)).half.answers(CLASSES, 1)
    }
    assert client_app._registered_funcs.keys() == KINDS.keys() | queries


def _expected(config: RunConfig) -> Expected:
    method = build_method(config)
    return Expected(config, method, CLASSES, method.on_server(), WIDTH)


def _replies(config: RunConfig) -> dict[str, tuple[Message, Records, Beside]]:
    """The honest reply of the first client to each kind of message, and what is expected in it and beside it."""
    grid = InProcessGrid(client_app, partitions(CLIENTS))
    release = open_release(Path(config.data_dir))
    (member, *_) = call_roll(grid, config, release.class_names, 1)
    expected = _expected(config)
    expected.half.prepare(config, release)
    expected.half.before_round(2, ArrayRecord(), lambda action, arrays: {})
    kinds = dict(KINDS)
    for action in expected.half.answers(CLASSES, 1):
        kinds[f"query.{action}"] = lambda expected, member, action=action: expected.in_query(action, member)  # type: ignore[misc]
    model = build_model(config.model, CLASSES, config.seed, expected.method.networks, expected.method.heads)
    content = RecordDict(
        {
            keys.ARRAYS: ArrayRecord(model.state_dict()),
            keys.CONFIG: ConfigRecord({**config.to_flat(), keys.SERVER_ROUND: 1, keys.CLIPPING_NORM: 1.0}),
            keys.VISIT: ConfigRecord({keys.RUN: "run", keys.LAST_ROUND: 0}),
        }
    )
    if not config.privacy.startswith("client-"):
        del content.config_records[keys.CONFIG][keys.CLIPPING_NORM]
    told = expected.half.tell(member.partition_id)
    if told:
        content[keys.METHOD] = ConfigRecord({**told})
    found = {}
    for kind, records in kinds.items():
        message = Message(content, member.node_id, kind.removesuffix(".default"))
        (reply,) = grid.send_and_receive([message])
        beside = expected.beside(told) if kind == "train.default" else {}
        found[kind] = (reply, records(expected, member), beside)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_honest_replies_are_as_expected_and_others_never_raise(method: str, tiny_sample: Path, tmp_path: Path) -> None:
    config = with_own_strategy(
        RunConfig(
            method=method,
            method_args=ARGS.get(method, ""),
            data_dir=str(tiny_sample),
            state_dir=str(tmp_path),
            model="cnn",
            image_size=16,
            batch_size=8,
            local_epochs=2,
            fraction_evaluate=1.0,
            inspection="both",
            holdout_fraction=0.2,
        )
    )
    rng = random.Random(method)
    for kind, (reply, expected, beside) in _replies(config).items():
        check = partial(problem_of_records, expected=expected, with_model=keys.ARRAYS in reply.content, beside=beside)
        assert (keys.METHOD_ARRAYS in reply.content) == bool(beside)
        assert check(reply.content) is None, kind
        for _ in range(REPLIES):
            wrong = malformed(reply, rng)
            if wrong.has_content():
                problem = check(wrong.content)
                assert problem is None or (problem.isprintable() and len(problem) < 500)


def test_a_roll_call_without_the_nonsense_of_one_site(tmp_path: Path, tiny_sample: Path) -> None:
    config = RunConfig(data_dir=str(tiny_sample))
    names = open_release(tiny_sample).class_names
    grid = InProcessGrid(client_app, partitions(CLIENTS))
    replies = list(OrderedGrid(grid, list(grid.nodes)).send_and_receive(roll_call_messages(list(grid.nodes), config)))
    rng = random.Random(3)
    for _ in range(REPLIES * 5):
        spoilt = rng.randrange(CLIENTS)
        answers = [malformed(reply, rng) if place == spoilt else reply for place, reply in enumerate(replies)]
        members, counts, left_out = judge(answers, list(grid.nodes), names)
        honest = {reply.metadata.src_node_id for place, reply in enumerate(replies) if place != spoilt}
        assert honest <= {member.node_id for member in members} == set(counts)
        assert len(members) + len(left_out) == CLIENTS
        assert [line for line in left_out if not line.isprintable() or len(line) >= 1200] == []


def test_queries_of_a_method_count_only_as_expected(tiny_sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = RunConfig(method="fednoro", strategy="fedavg", data_dir=str(tiny_sample), model="cnn", image_size=16)
    liar = Liar("query.class_losses", _spoiling(5))
    grid = InProcessGrid(liar, partitions(CLIENTS))
    members = call_roll(grid, config, open_release(tiny_sample).class_names, 1)
    ordered = OrderedGrid(grid, [member.node_id for member in members])
    exchange = Exchange(ordered, members, make_strategy(config), config, half=build_method(config).on_server())
    arrays = ArrayRecord(build_model("cnn", CLASSES, 1).state_dict())
    for _ in range(REPLIES):
        answers: Mapping[int, Any] = exchange._ask(1, Traffic(), "class_losses", arrays)
        assert sorted(answers) == [partition for partition in range(CLIENTS) if partition != LIAR]
    assert liar.sent == REPLIES == len([line for line in caplog.messages if "left out: client 2: " in line])


def test_message_types_are_those_of_flower() -> None:
    assert {kind.partition(".")[0] for kind in KINDS} == {MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE}
