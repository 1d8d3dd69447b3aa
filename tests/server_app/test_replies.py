"""Replies that no honest client sends: each is left out with one sentence, and the others are aggregated."""

import itertools
import logging
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from config.run_config import RunConfig
from messages.keys import REFUSED
from methods import build_method
from server_app.expected import Expected
from server_app.members import Member
from server_app.model_check import ModelCheck
from server_app.replies import Replies, in_a_sentence
from server_app.strategies.fedavg import StreamingFedAvg
from tests.fakes import instruction, record

MODEL: dict[str, npt.NDArray[Any]] = {
    "weight": np.ones((2, 3), np.float32),
    "running_mean": np.zeros(2, np.float32),
    "running_var": np.ones(2, np.float32),
    "num_batches_tracked": np.array(5, np.int64),
}
MEMBERS = {10 + i: Member(10 + i, i, 100, np.full(2, 50), "cpu") for i in range(3)}
METRICS: dict[str, Any] = {
    "num-examples": 40, "train-loss": 1.0, "epoch-losses": [1.0], "images-seen": 40, "train-seconds": 0.5,
    "visit-seconds": 1.0,
}  # fmt: skip
CONFIG = RunConfig()
EXPECTED = Expected(CONFIG, build_method(CONFIG), 2)


def _tally(**checks: Any) -> Replies:
    expected = {node_id: EXPECTED.in_training(member, {}) for node_id, member in MEMBERS.items()}
    return Replies(MEMBERS, expected, ModelCheck(record(MODEL), **checks))


def _answer(node_id: int, change: Callable[[RecordDict], Any] = lambda content: None) -> Message:
    """A node's good reply, with a change."""
    content = RecordDict({"arrays": record(MODEL), "metrics": MetricRecord(dict(METRICS))})
    change(content)
    return Message(content, reply_to=instruction(node_id=node_id))


def _metric(key: str, value: Any) -> Callable[[RecordDict], Any]:
    return lambda content: content.metric_records["metrics"].__dict__["_data"].__setitem__(key, value)


def _array(name: str, value: Any) -> Callable[[RecordDict], Any]:
    array = value if isinstance(value, Array) else Array(value)
    return lambda content: content.array_records["arrays"].__setitem__(name, array)


def _lying(array: npt.NDArray[Any], **claims: Any) -> Array:
    lying = Array(array)
    for key, value in claims.items():
        setattr(lying, key, value)
    return lying


def _headed(header: bytes) -> Array:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)
    return _lying(WEIGHT, data=data)


WEIGHT = MODEL["weight"]
MALFORMED: dict[str, tuple[Callable[[RecordDict], Any], str]] = {
    "no examples": (_metric("num-examples", 0), r"'num-examples' is 0; it must be a whole number from 1 to 100"),
    "negative examples": (_metric("num-examples", -5), r"'num-examples' is -5; it must be"),
    "nan examples": (_metric("num-examples", math.nan), r"'num-examples' is nan; it must be"),
    "endless examples": (_metric("num-examples", math.inf), r"'num-examples' is inf; it must be"),
    "half an example": (_metric("num-examples", 2.5), r"'num-examples' is 2.5; it must be"),
    "true examples": (_metric("num-examples", True), r"'num-examples' is True; it must be"),
    "a list of examples": (_metric("num-examples", [3, 4]), r"'num-examples' is \[3, 4\]; it must be"),
    "a number of 10,000 digits": (_metric("num-examples", 10**9999), r"'num-examples' is a number of \d+ bits"),
    "more examples than it holds": (_metric("num-examples", 101), r"'num-examples' is 101; it must be .* to 100"),
    "absurdly many images": (_metric("images-seen", 1e308), r"'images-seen' is 1e\+308; it must be"),
    "negative time": (_metric("visit-seconds", -1.0), r"'visit-seconds' is -1.0; it must be"),
    "no loss": (lambda c: c.metric_records["metrics"].pop("train-loss"), r"'train-loss' is missing"),
    "a loss that is not finite": (_metric("train-loss", math.nan), r"'train-loss' is nan; it must be a number"),
    "an absurd loss": (_metric("train-loss", 1e300), r"'train-loss' is 1e\+300; it must be a number from -1e\+30"),
    "a list for a loss": (_metric("train-loss", [1.0]), r"'train-loss' is \[1.0\]; it must be a number"),
    "a listed loss that is not finite": (_metric("epoch-losses", [math.inf]), r"'epoch-losses' has inf in it; each"),
    "a number for a list": (_metric("epoch-losses", 1.0), r"'epoch-losses' is 1.0; it must be a list of 1 numbers"),
    "a longer list": (_metric("epoch-losses", [1.0, 2.0]), r"'epoch-losses' is a list of 2; it must be a list of 1"),
    "another metric": (_metric("extra", 1.0), r"'extra' is not among the values that are expected"),
    "a metric with a forged name": (_metric("a\n\x1b[31mb", 1.0), r"'a\\n\\x1b\[31mb' is not among the values"),
    "no metrics": (lambda c: c.pop("metrics"), r"it has no record 'metrics'"),
    "settings for metrics": (lambda c: c.__setitem__("metrics", ConfigRecord()), r"its record 'metrics' is of another"),
    "two records of metrics": (lambda c: c.__setitem__("more", MetricRecord({"a": 1})), r"its record 'more' is not"),
    "no arrays": (lambda c: c.pop("arrays"), r"it has no record 'arrays'"),
    "metrics for arrays": (lambda c: c.__setitem__("arrays", MetricRecord()), r"its record 'arrays' holds no arrays"),
    "two records of arrays": (lambda c: c.__setitem__("more", ArrayRecord()), r"its record 'more' is not among those"),
    "an array less": (lambda c: c.array_records["arrays"].pop("weight"), r"its arrays are not those .* \('weight'\)"),
    "an array more": (_array("extra", WEIGHT), r"its arrays are not those of the model \('extra'\)"),
    "another shape": (_array("weight", WEIGHT.T.copy()), r"'weight' has shape \(3, 2\), not \(2, 3\)"),
    "another shape than it claims": (
        _array("weight", _lying(WEIGHT.T.copy(), shape=(2, 3))), r"'weight' has shape \(3, 2\), not \(2, 3\)",
    ),
    "a claim of another shape": (_array("weight", _lying(WEIGHT, shape=(6,))), r"'weight' claims to be 'float32' of"),
    "a claim of another dtype": (_array("weight", _lying(WEIGHT, dtype="int8")), r"'weight' claims to be 'int8' of"),
    "another dtype": (_array("weight", WEIGHT.astype(np.float64)), r"'weight' is float64, not float32"),
    "text": (_array("weight", np.full((2, 3), "x")), r"'weight' cannot be read: its header is not"),
    "another dtype than it claims": (
        _array("num_batches_tracked", _lying(np.array(5.0), dtype="int64")), r"'num_batches_tracked' is float64, not",
    ),
    "a header without a dtype": (
        _array("weight", _headed(b"{'descr': '', 'fortran_order': False, 'shape': (2, 3), }\n")), r"'weight' cannot be",
    ),
    "a header with a truth for a size": (
        _array("weight", _headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }\n")), r"'weight' c",
    ),
    "a header that nests too deeply": (_array("weight", _headed(b"-" * 9000)), r"'weight' cannot be read"),
    "nan": (_array("weight", WEIGHT * np.nan), r"'weight' holds a value that is not finite"),
    "infinity": (_array("running_mean", np.array([0, np.inf], np.float32)), r"'running_mean' holds a value"),
    "the largest weights": (_array("weight", WEIGHT * 3e38), r"its update is .* long, and the model itself 2.45"),
    "an update that replaces the model": (_array("weight", WEIGHT * 1e3), r"its update is 2.45e\+03 long, and"),
    "absurd statistics": (_array("running_mean", np.full(2, 3e38, np.float32)), r"'running_mean' holds 3e\+38"),
    "a negative variance": (_array("running_var", np.array([1, -1], np.float32)), r"'running_var' holds -1"),
    "a negative counter": (_array("num_batches_tracked", np.array(-1)), r"'num_batches_tracked' holds -1"),
    "no array at all": (_array("weight", _lying(WEIGHT, data=b"nothing")), r"'weight' cannot be read"),
    "a short array": (_array("weight", _lying(WEIGHT, data=Array(WEIGHT).data[:-4])), r"'weight' cannot be read"),
    "an empty array": (_array("weight", _lying(WEIGHT, data=b"")), r"'weight' cannot be read"),
    "another serialisation": (_array("weight", _lying(WEIGHT, stype="pickle")), r"'weight' cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_reply_is_left_out_with_one_sentence(case: str) -> None:
    """Wherever it stands among the others: none decides what is expected of the next."""
    change, sentence = MALFORMED[case]
    for place, order in itertools.product(range(3), itertools.permutations(range(3))):
        failures: list[tuple[int, str]] = []
        tally = _tally()
        tally.on_failure = lambda *failure, to=failures: to.append(failure)
        replies = [_answer(10 + i, change) if i == place else _answer(10 + i) for i in order]
        arrays, metrics = StreamingFedAvg().aggregate_train(1, tally.good(replies))
        ((partition, reason),) = failures
        assert partition == place
        assert re.fullmatch(rf"client {place}: .*{sentence}.*\.", reason), reason
        assert tally.failures == {place: reason}
        assert sorted(tally.metrics) == sorted({0, 1, 2} - {place})
        assert arrays is not None
        assert metrics is not None
        for name, value in MODEL.items():
            np.testing.assert_array_equal(arrays[name].numpy(), value)


def test_errors_silence_and_refusals_are_distinguished() -> None:
    tally = _tally()
    error = Message(Error(REFUSED, "client 0: 'batch-size' is 64, too many."), reply_to=instruction(node_id=10))
    assert [reply.metadata.src_node_id for reply in tally.good([error, _answer(11)])] == [11]
    assert tally.failures == {0: "client 0: 'batch-size' is 64, too many.", 2: "client 2: no reply in time."}
    assert tally.refused == {0}


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", "client 0: no reason given."),
        (None, "client 0: no reason given."),
        ("\n\n", "client 0: no reason given."),
        ("client 2: it was me", "client 0: it was me."),
        ("client 0 on host (10.0.0.1): a sentence.", "client 0 on host (10.0.0.1): a sentence."),
        ("ValueError: 3\nTraceback:\n  line 7", "client 0: ValueError: 3 | Traceback: | line 7"),
        ("a\r\x1b[2Kround 7/7   test accuracy 99 %\u202e", "client 0: a | ?[2Kround 7/7   test accuracy 99 %?"),
    ],
)
def test_the_words_of_a_client_are_one_printable_line(reason: Any, kept: str, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[tuple[int, str]] = []
    tally = _tally()
    tally.on_failure = lambda *failure: failures.append(failure)
    error = Message(Error(1, reason), reply_to=instruction(node_id=10))
    with caplog.at_level(logging.WARNING):
        list(tally.good([error, _answer(11), _answer(12)]))
    assert failures == [(0, kept)]
    assert caplog.messages == [f"Reply left out: {kept.partition(' | ')[0]}"]


def test_the_words_of_a_client_are_cut() -> None:
    tally = _tally()
    list(tally.good([Message(Error(1, "x" * 50_000_000), reply_to=instruction(node_id=10))], [10]))
    assert len(tally.failures[0]) < 4100
    assert tally.failures[0].endswith("x [... of 50,000,000 characters]")


def _longer(factor: float) -> Callable[[RecordDict], Any]:
    return _array("weight", WEIGHT + np.float32(factor))


def test_of_a_traceback_a_sentence_keeps_where_it_ends() -> None:
    frames = (
        'File "/flower/apps/x/client_app/app.py", line 52, in answer | f() | File "/x/custom/mine.py", line 6, in f'
    )
    assert in_a_sentence(f"client 1: ValueError: no loss | {frames} | ValueError: no loss") == (
        "client 1: ValueError: no loss (mine.py, line 6); failures.jsonl has the traceback."
    )
    for reason in ("client 1: no reply in time.", "client 1: 'seed' is -1. | 'lr' is 0."):
        assert in_a_sentence(reason) == reason


def test_updates_above_the_limit_are_left_out() -> None:
    tally = _tally(max_norm=2.0)
    good = tally.good([_answer(10, _longer(0.8)), _answer(11, _longer(0.9)), _answer(12)])
    assert [reply.metadata.src_node_id for reply in good] == [10, 12]
    assert tally.failures == {1: "client 1: its update is 2.2 long, and 'max-update-norm' is 2."}


def test_the_median_of_a_round_decides_only_when_all_replies_are_here() -> None:
    tally = _tally(max_ratio=3.0)
    list(tally.good([_answer(10, _longer(4.0)), _answer(11, _longer(1.0)), _answer(12, _longer(0.9))]))
    assert tally.models is not None
    assert tally.models.median == pytest.approx(math.sqrt(6) * 1.0)
    (partition, problem), *rest = tally.models.too_long().items()
    assert (partition, rest) == (0, [])
    assert problem == "its update is 9.8 long, 4 times the round's median, and 'max-update-ratio' is 3"
    tally.refuse(partition, problem)
    assert tally.refused == set(tally.failures) == {0}
    assert sorted(tally.metrics) == [1, 2]


def test_a_client_that_should_clip_and_does_not_is_left_out() -> None:
    tally = _tally(clipping_norm=1.0)
    within = 1.0 / math.sqrt(6)
    good = tally.good([_answer(10, _longer(within)), _answer(11, _longer(1.01 * within)), _answer(12)])
    assert [reply.metadata.src_node_id for reply in good] == [10, 12]
    assert tally.failures == {1: "client 1: its update is 1.01 long, but clients clip to 1."}


def test_unusual_updates_are_known() -> None:
    tally = _tally()
    list(tally.good([_answer(10, _longer(0.01)), _answer(11, _longer(0.01)), _answer(12, _longer(0.3))]))
    assert tally.models is not None
    assert list(tally.models.unusual()) == [2]
    tally.models.release()
    assert tally.models.norms[2] == pytest.approx(0.3 * math.sqrt(6), rel=1e-6)


def test_updates_of_length_0_are_no_measure_of_others() -> None:
    tally = _tally(max_ratio=3.0)
    list(tally.good([_answer(10), _answer(11), _answer(12, _longer(0.3))]))
    assert tally.models is not None
    assert tally.models.median == 0
    assert tally.models.too_long() == {}
    assert tally.models.unusual() == {}


@given(
    key=st.sampled_from(sorted(METRICS)),
    value=st.one_of(st.floats(), st.integers(), st.lists(st.floats(), max_size=2), st.text(), st.booleans(), st.none()),
    name=st.sampled_from(sorted(MODEL)),
    data=st.binary(max_size=200),
)
def test_whatever_a_client_sends_the_round_ends_well(key: str, value: Any, name: str, data: bytes) -> None:
    cut = _lying(MODEL[name], data=Array(MODEL[name]).data[: len(data)] + data)
    for change in (_metric(key, value), _array(name, cut), _array(name, _lying(MODEL[name], data=data))):
        tally = _tally()
        replies = [_answer(10), _answer(11, change), _answer(12)]
        arrays, metrics = StreamingFedAvg().aggregate_train(1, tally.good(replies))
        assert arrays is not None
        assert metrics is not None
        assert all(np.isfinite(array.numpy()).all() for array in arrays.values())
        assert math.isfinite(metrics["train-loss"])  # type: ignore[arg-type]
        assert set(tally.failures) <= {1}
