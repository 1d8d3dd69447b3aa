"""Bytes of a round: what goes out and comes back, as it travels, in the round that it belongs to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from torch import Tensor
from torch.nn.functional import cross_entropy

from client_app.app import app as client_app
from learning.method import Batch, Method, Visit
from learning.schema import Floats
from learning.server_half import Ask, ServerHalf
from messages.payload import pack
from methods import METHODS
from server_app.grid import OrderedGrid
from server_app.model_transport import Packing
from server_app.traffic import Traffic, bytes_of_arrays, in_words
from tests.fakes import CutOffError, InProcessGrid, cut_off_in, partitions, record, rounds_of, run_in_process

HEADER = 128  # of every small array, as numpy.save writes it
# The cnn with 14 classes: three convolutions, their BatchNorms (weight, bias, mean, variance), the classifier.
FLOATS = 3 * 16 * 9 + 16 * 32 * 9 + 32 * 64 * 9 + 4 * (16 + 32 + 64) + 14 * 64 + 14
COUNTERS = 3  # int64
ARRAYS = 20
CNN = 4 * FLOATS + 8 * COUNTERS + ARRAYS * HEADER
PIECE = 2000  # at least what is beside the values in a packed cnn: names and shapes

MODEL: dict[str, np.ndarray] = {"weight": np.ones((50, 10), np.float32), "counter": np.array(5, np.int64)}
OWN = {"centres": np.ones(25, np.float32)}
MODEL_BYTES, OWN_BYTES = 2000 + 8 + 2 * HEADER, 100 + HEADER


def _content(**records: Any) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"x": 1.0}), "config": ConfigRecord({"y": "z" * 999}), **records})


def _both(message: Message, context: Context) -> Message:
    return Message(_content(arrays=record(MODEL), more=record(OWN)), reply_to=message)


def _exchange(
    handler: Callable[[Message, Context], Message | None],
    *,
    kind: str | None = None,
    grid: type[InProcessGrid] = InProcessGrid,
    timeout: float | None = None,
) -> Traffic:
    """What an exchange with three clients counts; they share one model."""
    nodes = grid(handler, partitions(3))
    ordered = OrderedGrid(nodes, sorted(nodes.nodes), packing=Packing(kind) if kind else None)
    traffic, content = Traffic(), _content(arrays=record(MODEL))
    messages = [Message(content, node_id, "train") for node_id in sorted(nodes.nodes)]
    replies = ordered.send_and_receive(messages, timeout=timeout, traffic=traffic)
    assert traffic.received == 0
    list(replies)
    return traffic


def test_arrays_alone_count_and_each_message_that_has_them() -> None:
    assert _exchange(_both) == Traffic(3 * MODEL_BYTES, 3 * (MODEL_BYTES + OWN_BYTES))


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_models_count_as_they_travel(kind: str) -> None:
    """Replies before they are unpacked."""

    def packed(message: Message, context: Context) -> Message:
        return Message(_content(arrays=pack(MODEL, kind)), reply_to=message)

    size = bytes_of_arrays(Message(_content(arrays=pack(MODEL, kind)), 1, "train"))
    values = (4 if kind == "fp32" else 2) * 500 + 8
    assert values < size < values + 400
    assert _exchange(packed, kind=kind) == Traffic(3 * size, 3 * size)


def test_errors_and_replies_that_do_not_come_carry_nothing() -> None:
    answered: list[int] = []

    def handler(message: Message, context: Context) -> Message | None:
        answered.append(1)
        if len(answered) == 1:
            return Message(Error(1, "out of luck " * 99), reply_to=message)
        return _both(message, context) if len(answered) == 2 else None

    assert _exchange(handler, timeout=0.1) == Traffic(3 * MODEL_BYTES, MODEL_BYTES + OWN_BYTES)


def test_a_message_that_the_superlink_does_not_take_did_not_go_out() -> None:
    class Refusing(InProcessGrid):
        def push_messages(self, messages: Any) -> Any:
            _, *others = super().push_messages(messages)
            return [None, *others]

    assert _exchange(_both, grid=Refusing) == Traffic(2 * MODEL_BYTES, 2 * (MODEL_BYTES + OWN_BYTES))


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_000, "1.23 MB"), (94_400_736, "94.4 MB"),
        (330_000_000, "330 MB"), (999_499_999, "999 MB"), (999_500_000, "1 GB"), (2 * 10**13, "20 TB"),
    ],
)  # fmt: skip
def test_in_words(count: int, words: str) -> None:
    assert in_words(count) == words


# Whole runs: two of four clients a round.


def _run(out: Path, sample: Path, **settings: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{"model": "cnn", "image_size": 16, **settings})


def _bytes(run_dir: Path) -> list[tuple[int, int]]:
    return [(line["sent-bytes"], line["received-bytes"]) for line in rounds_of(run_dir)]


def test_a_run_counts_parameters_and_counters_of_each_client(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("flwr").propagate = True
    with caplog.at_level("INFO"):
        run_dir = _run(tmp_path, tiny_sample)
    assert _bytes(run_dir) == [(2 * CNN, 2 * CNN)] * 2
    assert all({"query-bytes", "eval-bytes"}.isdisjoint(line) for line in rounds_of(run_dir))
    assert [line for line in caplog.messages if " sent " in line] == [
        "Round 1 sent 204 kB to 2 clients and received 204 kB."  # 2 * (99,344 + 20 * 128)
    ]


def test_two_networks_take_twice_as_much(tmp_path: Path, tiny_sample: Path) -> None:
    assert _bytes(_run(tmp_path, tiny_sample, method="co-teaching", num_server_rounds=1)) == [(4 * CNN, 4 * CNN)]


def test_a_head_alone_is_all_that_travels_of_a_frozen_network(tmp_path: Path, tiny_sample: Path) -> None:
    head = 4 * (14 * 64 + 14) + 2 * HEADER
    assert _bytes(_run(tmp_path, tiny_sample, trainable="head", num_server_rounds=1)) == [(2 * head, 2 * head)]


def test_half_precision_takes_half_as_much_but_for_counters(tmp_path: Path, tiny_sample: Path) -> None:
    for sent, received in _bytes(_run(tmp_path, tiny_sample, payload="bf16")):
        values = 2 * FLOATS + 8 * COUNTERS
        assert values < sent / 2 < values + PIECE
        assert received == sent


class Failing:
    """Clients of which one, the first that is asked, gives no reply, or one that is refused, the first `times`."""

    def __init__(self, how: str, times: int) -> None:
        self.how, self.times, self.victim = how, times, -1

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train":
            return client_app(message, context)
        partition = int(context.node_config["partition-id"])
        self.victim = partition if self.victim < 0 else self.victim
        if partition != self.victim or not self.times:
            return client_app(message, context)
        self.times -= 1
        if self.how == "error":
            return Message(Error(1, "client: out of luck"), reply_to=message)
        reply = client_app(message, context)
        reply.content["metrics"] = MetricRecord({"num-examples": 0})
        return reply


@pytest.mark.parametrize(
    ("how", "times", "sent", "received"),
    [("error", 1, 3, 2), ("error", 2, 3, 1), ("refused", 1, 3, 3), ("refused", 2, 3, 3)],
)
def test_clients_that_are_asked_again_and_replies_that_are_refused_count(
    tmp_path: Path, tiny_sample: Path, how: str, times: int, sent: int, received: int
) -> None:
    run_dir = _run(tmp_path, tiny_sample, handler=Failing(how, times))
    assert [len(line["failed-partitions"]) for line in rounds_of(run_dir)] == [times - 1, 0]
    assert _bytes(run_dir) == [(sent * CNN, received * CNN), (2 * CNN, 2 * CNN)]


@dataclass(frozen=True)
class Asking(Method):
    """In round r its server half sends r floats beside the model, and asks all clients before round 2."""

    def begin(self, visit: Visit) -> None:
        visit.sends = {"own": visit.received["count"].sum()[None].expand(100)}

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)

    def sends(self, told: Any, classes: int, width: int) -> dict[str, Floats]:
        return {"own": Floats((100,))}

    def on_server(self) -> "AskingOnServer":
        return AskingOnServer()


class AskingOnServer(ServerHalf):
    def __init__(self) -> None:
        self._round = 0

    def before_round(self, server_round: int, arrays: ArrayRecord, ask: Ask) -> None:
        self._round = server_round
        if server_round == 2:
            ask("class_losses", arrays)

    def answers(self, classes: int, images: int) -> Any:
        return METHODS["fednoro"]().on_server().answers(classes, images)

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        return {"count": np.ones(self._round, np.float32)}


def _expected(rounds: int) -> list[tuple[int, int]]:
    beside = [HEADER + 4 * number for number in range(1, rounds + 1)]
    return [(2 * (CNN + one), 2 * (CNN + HEADER + 400)) for one in beside]


@pytest.fixture
def _asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ce", Asking)


@pytest.mark.usefixtures("_asking")
@pytest.mark.parametrize("fraction_evaluate", [0.0, 0.5])
def test_rounds_count_their_own_arrays_whether_or_not_they_are_sent_early(
    tmp_path: Path, tiny_sample: Path, fraction_evaluate: float
) -> None:
    run_dir = _run(tmp_path, tiny_sample, num_server_rounds=3, fraction_evaluate=fraction_evaluate, evaluate_every=2)
    assert _bytes(run_dir) == _expected(3)
    assert [line.get("query-bytes") for line in rounds_of(run_dir)] == [None, 4 * CNN, None]
    on_clients = 2 * CNN if fraction_evaluate else None
    assert [line.get("eval-bytes") for line in rounds_of(run_dir)] == [None, on_clients, on_clients]


@pytest.mark.usefixtures("_asking")
@pytest.mark.parametrize("message", [3, 4, 5])  # of two in each round
def test_a_resumed_run_counts_what_an_undisturbed_one_does(tmp_path: Path, tiny_sample: Path, message: int) -> None:
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, num_server_rounds=3, handler=cut_off_in(message))
    assert _bytes(_run(tmp_path, tiny_sample, num_server_rounds=3, resume="auto")) == _expected(3)
