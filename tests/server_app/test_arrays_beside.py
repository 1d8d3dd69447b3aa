"""Arrays that a method exchanges beside the weights: checked like weights, exact, seen by no strategy, let go of."""

import gc
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor
from torch.nn.functional import cross_entropy

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from learning.method import Batch, Method, Visit
from learning.schema import Floats, Number
from learning.server_half import ServerHalf, Told
from messages import keys
from methods import METHODS, build_method
from server_app.strategies.collecting import HoldingStrategy
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategy import check_privacy
from tests.fakes import CutOffError, cut_off_in, outcome_of, record, rounds_of, run_in_process
from tests.server_app.test_replies import MEMBERS, _answer, _lying, _tally

TINY: dict[str, Any] = {"model": "cnn", "image_size": 16, "num_server_rounds": 4, "fraction_train": 0.5}
# None of them is a number of half precision.
ODD = np.array([1 + 2**-20, 1e-30, -123456.789, 2**-126, -0.0, 70_000.123], np.float32)


# What is refused, in one reply of three.

CENTRES = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
RULES = {"centres": Floats((2, 3), Number(-100, 100)), "held": Floats((2,), Number(0, 1, whole=True))}
BESIDE = {"centres": CENTRES, "held": np.array([1, 0], np.float32)}


def _with(change: Callable[[RecordDict], Any] = lambda content: None) -> Callable[[RecordDict], Any]:
    def changed(content: RecordDict) -> None:
        content[keys.METHOD_ARRAYS] = record(BESIDE)
        change(content)

    return changed


def _array(name: str, value: Any) -> Callable[[RecordDict], Any]:
    array = value if isinstance(value, Array) else Array(value)
    return lambda content: content.array_records[keys.METHOD_ARRAYS].__setitem__(name, array)


def _record(value: Any) -> Callable[[RecordDict], Any]:
    return lambda content: content.__setitem__(keys.METHOD_ARRAYS, value)


MALFORMED: dict[str, tuple[Callable[[RecordDict], Any], str]] = {
    "no record": (lambda c: c.pop(keys.METHOD_ARRAYS), r"it has no record 'method-arrays'"),
    "another record": (lambda c: c.__setitem__("more", ArrayRecord()), r"its record 'more' is not among those that"),
    "metrics": (_record(MetricRecord({"a": 1.0})), r"its record 'method-arrays' holds no arrays"),
    "settings": (_record(ConfigRecord()), r"its record 'method-arrays' holds no arrays"),
    "nothing in it": (_record(ArrayRecord()), r"the arrays in its record .* are not those of the method \('centres'\)"),
    "an array less": (
        lambda c: c.array_records[keys.METHOD_ARRAYS].pop("held"), r"are not those of the method \('held'\)",
    ),
    "an array more": (_array("extra", CENTRES), r"are not those of the method \('extra'\)"),
    "another shape": (_array("centres", CENTRES.T.copy()), r"'centres' is float32 of shape \(3, 2\); it must be float"),
    "another dtype": (_array("centres", CENTRES.astype(np.float64)), r"'centres' is float64 of shape \(2, 3\); it"),
    "half precision": (_array("centres", CENTRES.astype(np.float16)), r"'centres' is float16 of shape"),
    "integers": (_array("held", np.array([1, 0])), r"'held' is int64 of shape \(2,\); it must be float32"),
    "nan": (_array("centres", CENTRES * np.float32("nan")), r"'centres' has nan in it; each must be a number from"),
    "one nan": (_array("held", np.array([1, np.nan], np.float32)), r"'held' has nan in it; each must be a whole"),
    "infinity": (_array("centres", CENTRES * np.float32("inf")), r"'centres' has inf in it; each must be a number"),
    "minus infinity": (_array("centres", -CENTRES * np.float32("inf")), r"'centres' has -inf in it"),
    "too large": (_array("centres", CENTRES * 100), r"'centres' has 600.0 in it; each must be .* from -100 to 100"),
    "too small": (_array("centres", -CENTRES * 100), r"'centres' has -600.0 in it"),
    "a half": (_array("held", np.array([1, 0.5], np.float32)), r"'held' has 0.5 in it; each must be a whole number"),
    "a claim of another shape": (
        _array("centres", _lying(CENTRES, shape=(6,))), r"'centres' claims to be 'float32' of shape \(6,\), which it",
    ),
    "a claim of another dtype": (_array("centres", _lying(CENTRES, dtype="int8")), r"'centres' claims to be 'int8' of"),
    "no array at all": (_array("centres", _lying(CENTRES, data=b"nothing")), r"'centres' cannot be read: it does not"),
    "a short array": (_array("held", _lying(CENTRES, data=Array(CENTRES).data[:-4])), r"'held' cannot be read: it has"),
    "another serialisation": (_array("held", _lying(CENTRES, stype="pickle")), r"'held' cannot be read: it is serial"),
}  # fmt: skip


def _tally_of_arrays() -> Any:
    tally = _tally()
    tally.beside = dict.fromkeys(MEMBERS, RULES)
    return tally


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_arrays_are_left_out_with_one_sentence(case: str) -> None:
    change, sentence = MALFORMED[case]
    for place in range(3):
        tally = _tally_of_arrays()
        replies = [_answer(10 + i, _with(change if i == place else lambda content: None)) for i in range(3)]
        good = list(tally.good(replies))
        reason = tally.failures.pop(place)
        assert tally.failures == {}
        assert re.fullmatch(rf"client {place}: .*{sentence}.*\.", reason), reason
        assert [reply.metadata.src_node_id - 10 for reply in good] == [i for i in range(3) if i != place]
        assert sorted(tally.arrays) == sorted(tally.metrics) == [i for i in range(3) if i != place]
        assert all(keys.METHOD_ARRAYS not in reply.content for reply in good)
        for arrays in tally.arrays.values():
            assert {name: value.tobytes() for name, value in arrays.items()} == {
                name: value.tobytes() for name, value in BESIDE.items()
            }


def test_arrays_that_nobody_announced_are_refused() -> None:
    tally = _tally()
    assert len(list(tally.good([_answer(10, _with()), _answer(11), _answer(12)]))) == 2
    assert tally.failures == {0: "client 0: its record 'method-arrays' is not among those that are expected."}
    assert tally.arrays == {}


def test_a_reply_that_is_refused_afterwards_takes_its_arrays_along() -> None:
    """As a model does that turns out to be too far from the others."""
    tally = _tally_of_arrays()
    list(tally.good([_answer(10 + i, _with()) for i in range(3)]))
    tally.refuse(1, "its update is too long")
    assert sorted(tally.arrays) == [0, 2]


# Whole runs.


@dataclass(frozen=True)
class Echo(Method):
    """Sends back what it got, and a number of its own."""

    def begin(self, visit: Visit) -> None:
        visit.sends = {"echo": visit.received["odd"], "own": visit.received["count"] + len(visit.labels)}

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels) * (1 + visit.received["count"].sum() / 1000)

    def sends(self, told: Mapping[str, Told], classes: int, width: int) -> Mapping[str, Floats]:
        return {"echo": Floats(ODD.shape), "own": Floats((1,))}

    def on_server(self) -> "EchoOnServer":
        return EchoOnServer()


class EchoOnServer(ServerHalf):
    """Counts the images of those that replied."""

    heard_by_round: dict[int, dict[int, dict[str, np.ndarray]]]

    def __init__(self) -> None:
        self._count = np.zeros(1, np.float32)

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        return {"odd": ODD, "count": self._count + partition}

    def heard_arrays(self, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        for partition, sent in arrays.items():
            assert sent["echo"].tobytes() == ODD.tobytes()
            assert sent["own"] == self._count + partition + 30  # of 120 images
        self._count = self._count + 30 * len(arrays)

    def metrics(self, server_round: int) -> dict[str, float]:
        return {"count": float(self._count[0])}

    def state(self) -> dict[str, np.ndarray]:
        return {"count": self._count}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._count = state["count"]


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{**TINY, "method": "ce", **changes})


@pytest.fixture
def _echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ce", Echo)


@pytest.mark.usefixtures("_echo")
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("payload", ["fp32", "bf16", "fp16"])
def test_arrays_travel_exactly(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, payload: str, remote: bool
) -> None:
    """Packed or not, whatever the weights are rounded to."""
    packed: list[bool] = []

    def handler(message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train":
            both = (one.content.array_records[keys.METHOD_ARRAYS] for one in (message, reply))
            packed.extend(all(name.startswith("piece-") for name in arrays) for arrays in both)
        return reply

    if remote:
        monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))
    run_dir = _run(tmp_path, tiny_sample, payload=payload, handler=handler)
    assert set(packed) == {remote or payload != "fp32"}
    assert all(line["failed-partitions"] == [] for line in rounds_of(run_dir))
    assert rounds_of(run_dir)[-1]["count"] >= 180


@pytest.mark.usefixtures("_echo")
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "rfa", "multikrum"])
def test_no_strategy_sees_them(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    seen: list[set[str]] = []
    for cls in (StreamingFedAvg, HoldingStrategy):

        def aggregate(self: Any, server_round: int, replies: Any, old: Any = cls.aggregate_train) -> Any:
            def noting() -> Any:
                for reply in replies:
                    seen.append({*reply.content})
                    yield reply

            return old(self, server_round, noting())

        monkeypatch.setattr(cls, "aggregate_train", aggregate)
    _run(tmp_path, tiny_sample, strategy=strategy, num_server_rounds=2, fraction_train=1.0)
    assert len(seen) >= 8
    assert {frozenset(names) for names in seen} == {frozenset({keys.ARRAYS, keys.METRICS})}


@pytest.mark.usefixtures("_echo")
def test_they_are_let_go_of_after_the_round(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    of_round: list[weakref.ref[np.ndarray]] = []
    heard = EchoOnServer.heard_arrays

    def noting(self: EchoOnServer, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in of_round))
        of_round[:] = [weakref.ref(value) for sent in arrays.values() for value in sent.values()]
        heard(self, server_round, arrays)

    monkeypatch.setattr(EchoOnServer, "heard_arrays", noting)
    _run(tmp_path, tiny_sample)
    assert alive == [0, 0, 0, 0]
    gc.collect()
    assert all(one() is None for one in of_round)


@pytest.mark.usefixtures("_echo")
@pytest.mark.parametrize("message_number", [3, 4, 6])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, message_number: int
) -> None:
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number), resume="auto")
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto")) == expected


@pytest.mark.parametrize("message_number", [5, 7, 10])
def test_dualoptim_resumes_with_its_centroids(tmp_path: Path, tiny_sample: Path, message_number: int) -> None:
    settings = {"method": "dualoptim", "method_args": "warm-up-rounds=1 clients='all-noisy'", "num_server_rounds": 5}
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample, **settings))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message_number), resume="auto", **settings)
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto", **settings)) == expected


def test_dualoptim_tells_and_hears_centroids_of_noisy_clients_alone(tmp_path: Path, tiny_sample: Path) -> None:
    seen: list[tuple[int, bool, bool]] = []

    def handler(message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train":
            server_round = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
            seen.append((server_round, keys.METHOD_ARRAYS in message.content, keys.METHOD_ARRAYS in reply.content))
        return reply

    args = "warm-up-rounds=1 clients='all-noisy'"
    run_dir = _run(tmp_path, tiny_sample, method="dualoptim", method_args=args, handler=handler, num_server_rounds=3)
    assert set(seen) == {(1, False, False), (2, False, True), (3, True, True)}
    assert all(line["failed-partitions"] == [] for line in rounds_of(run_dir))


def test_privacy_does_not_cover_them() -> None:
    config = RunConfig(privacy="server-fixed", privacy_args="noise-multiplier=1 clipping-norm=1")
    with pytest.raises(ConfigError) as caught:
        check_privacy(config, Echo(), EchoOnServer())
    assert str(caught.value) == (
        "run config: 'privacy' is 'server-fixed', but 'method' is 'ce', for which clients send arrays without noise"
        " beside their weights; 'privacy' must be none, or 'method' another one."
    )
    check_privacy(config, build_method(config), ServerHalf())
    check_privacy(RunConfig(), Echo(), EchoOnServer())


def test_float_rules() -> None:
    assert Floats((2,)).problem(np.array([1, 2], np.float32)) is None
    assert Floats((0, 3)).problem(np.zeros((0, 3), np.float32)) is None
    assert Floats(()).problem(np.float32(2) + np.zeros((), np.float32)) is None
    whole = Floats((3,), Number(0, 9, whole=True))
    assert whole.problem(np.array([0, 3, 9], np.float32)) is None
    assert "has 2.5 in it" in str(whole.problem(np.array([0, 2.5, 9], np.float32)))
    assert torch.tensor(ODD).numpy().tobytes() == ODD.tobytes()
