"""Replies that no honest client sends: each is left out with one sentence, and the others are aggregated."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from messages.keys import REFUSED
from server_app.replies import Replies
from server_app.roll_call import Member
from server_app.strategies.fedavg import StreamingFedAvg
from tests.fakes import instruction, record

MODEL: dict[str, npt.NDArray[Any]] = {
    "weight": np.ones((2, 3), np.float32),
    "running_mean": np.zeros(2, np.float32),
    "num_batches_tracked": np.array(5, np.int64),
}
MEMBERS = {10 + i: Member(10 + i, i, 100, np.full(2, 50), "cpu") for i in range(3)}


def _answer(node_id: int, change: Callable[[RecordDict], Any] = lambda content: None) -> Message:
    """A node's good reply, with a change."""
    metrics = MetricRecord({"num-examples": 40, "train-loss": 1.0, "epoch-losses": [1.0]})
    content = RecordDict({"arrays": record(MODEL), "metrics": metrics})
    change(content)
    return Message(content, reply_to=instruction(node_id=node_id))


def _metric(key: str, value: Any) -> Callable[[RecordDict], Any]:
    return lambda content: content.metric_records["metrics"].__setitem__(key, value)


def _array(name: str, value: Any) -> Callable[[RecordDict], Any]:
    array = value if isinstance(value, Array) else Array(value)
    return lambda content: content.array_records["arrays"].__setitem__(name, array)


def _lying(array: npt.NDArray[Any], **claims: Any) -> Array:
    lying = Array(array)
    for key, value in claims.items():
        setattr(lying, key, value)
    return lying


WEIGHT = MODEL["weight"]
MALFORMED: dict[str, tuple[Callable[[RecordDict], Any], str]] = {
    "no examples": (_metric("num-examples", 0), r"'num-examples' is 0; it must be a number above 0"),
    "negative examples": (_metric("num-examples", -5), r"'num-examples' is -5; it must be"),
    "nan examples": (_metric("num-examples", math.nan), r"'num-examples' is nan; it must be"),
    "endless examples": (_metric("num-examples", math.inf), r"'num-examples' is inf; it must be"),
    "a list of examples": (_metric("num-examples", [3, 4]), r"'num-examples' is \[3, 4\]; it must be"),
    "more examples than it holds": (_metric("num-examples", 101), r"'num-examples' is 101, but it holds 100 images"),
    "no loss": (lambda c: c.metric_records["metrics"].pop("train-loss"), r"its metrics lack 'train-loss'"),
    "a loss that is not finite": (_metric("train-loss", math.nan), r"'train-loss' is nan; it must be finite"),
    "a listed loss that is not finite": (_metric("epoch-losses", [math.inf]), r"'epoch-losses' is \[inf\]; it must be"),
    "another metric": (_metric("extra", 1.0), r"its metrics are not those of the other replies \('extra'\)"),
    "a longer list": (_metric("epoch-losses", [1.0, 2.0]), r"its metrics are not those of .* \('epoch-losses'\)"),
    "no metrics": (lambda c: c.pop("metrics"), r"it carries 0 metric records; it must be 1"),
    "two records of metrics": (
        lambda c: c.__setitem__("more", MetricRecord({"a": 1})), r"it carries 2 metric records; it must be 1",
    ),
    "no arrays": (lambda c: c.pop("arrays"), r"it carries 0 array records; it must be 1, called 'arrays'"),
    "two records of arrays": (lambda c: c.__setitem__("more", ArrayRecord()), r"it carries 2 array records"),
    "an array less": (lambda c: c.array_records["arrays"].pop("weight"), r"its arrays are not those .* \('weight'\)"),
    "an array more": (_array("extra", WEIGHT), r"its arrays are not those of the model \('extra'\)"),
    "another shape": (_array("weight", WEIGHT.T.copy()), r"'weight' has shape \(3, 2\), not \(2, 3\)"),
    "another shape than it claims": (
        _array("weight", _lying(WEIGHT.T.copy(), shape=(2, 3))), r"'weight' has shape \(3, 2\), not \(2, 3\)",
    ),
    "another dtype": (_array("weight", WEIGHT.astype(np.float64)), r"'weight' is float64, not float32"),
    "text": (_array("weight", np.full((2, 3), "x")), r"'weight' is <U1, not float32"),
    "another dtype than it claims": (
        _array("num_batches_tracked", _lying(np.array(5.0), dtype="int64")), r"'num_batches_tracked' is float64, not",
    ),
    "nan": (_array("weight", WEIGHT * np.nan), r"'weight' holds a value that is not finite"),
    "infinity": (_array("running_mean", np.array([0, np.inf], np.float32)), r"'running_mean' holds a value"),
    "no array at all": (_array("weight", _lying(WEIGHT, data=b"nothing")), r"'weight' cannot be read"),
    "a short array": (_array("weight", _lying(WEIGHT, data=Array(WEIGHT).data[:-4])), r"'weight' cannot be read"),
    "an empty array": (_array("weight", _lying(WEIGHT, data=b"")), r"'weight' cannot be read"),
    "another serialisation": (_array("weight", _lying(WEIGHT, stype="pickle")), r"'weight' cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_reply_is_left_out_with_one_sentence(case: str) -> None:
    change, sentence = MALFORMED[case]
    failures: list[tuple[int, str]] = []
    tally = Replies(MEMBERS, record(MODEL), on_failure=lambda *failure: failures.append(failure))
    replies = [_answer(10), _answer(11, change), _answer(12)]
    arrays, metrics = StreamingFedAvg().aggregate_train(1, tally.good(replies, [10, 11, 12]))
    ((partition, reason),) = failures
    assert partition == 1
    assert re.fullmatch(rf"client 1: .*{sentence}.*\.", reason), reason
    assert tally.failures == {1: reason}
    assert sorted(tally.metrics) == [0, 2]
    assert arrays is not None
    assert metrics is not None
    for name, value in MODEL.items():
        np.testing.assert_array_equal(arrays[name].numpy(), value)


def test_errors_silence_and_refusals_are_distinguished() -> None:
    tally = Replies(MEMBERS, record(MODEL))
    error = Message(Error(REFUSED, "client 0: 'batch-size' is 64, too many."), reply_to=instruction(node_id=10))
    assert [reply.metadata.src_node_id for reply in tally.good([error, _answer(11)], [10, 11, 12])] == [11]
    assert tally.failures == {0: "client 0: 'batch-size' is 64, too many.", 2: "client 2: no reply in time."}
    assert tally.refused == {0}


@given(
    key=st.sampled_from(["num-examples", "train-loss"]),
    value=st.one_of(st.floats(), st.integers(), st.lists(st.floats(), max_size=2)),
    name=st.sampled_from(sorted(MODEL)),
    data=st.binary(max_size=200),
)
def test_whatever_a_client_sends_the_round_ends_well(key: str, value: Any, name: str, data: bytes) -> None:
    cut = _lying(MODEL[name], data=Array(MODEL[name]).data[: len(data)] + data)
    for change in (_metric(key, value), _array(name, cut), _array(name, _lying(MODEL[name], data=data))):
        tally = Replies(MEMBERS, record(MODEL))
        replies = [_answer(10), _answer(11, change), _answer(12)]
        arrays, metrics = StreamingFedAvg().aggregate_train(1, tally.good(replies, [10, 11, 12]))
        assert arrays is not None
        assert metrics is not None
        assert all(np.isfinite(array.numpy()).all() for array in arrays.values())
        assert math.isfinite(metrics["train-loss"])  # type: ignore[arg-type]
        assert set(tally.failures) <= {1}
