"""What a class of the user's own does wrong ends in one sentence, and before training where the class says it."""

import math
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from config.run_config import ConfigError, RunConfig
from learning.method import Method, Step
from learning.schema import Floats, Number
from learning.server_half import Choice, ServerHalf
from methods import METHODS, build_method
from methods.ce import CE
from server_app.stopping import RunStoppedError
from tests.fakes import rounds_of, run_in_process

NAME = "custom.mine:Mine"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a class of the user's own from hooks and attributes."""

    def made(half: dict[str, Any] | None = None, **members: Any) -> None:
        if half is not None:
            half_class = type("Half", (ServerHalf,), half)
            members["on_server"] = lambda self: half_class()
        module = types.ModuleType("custom.mine")
        module.__dict__["Mine"] = dataclass(frozen=True)(type("Mine", (CE,), members))
        monkeypatch.setitem(sys.modules, "custom.mine", module)

    return made


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), method=NAME, model="cnn", image_size=16, **changes)


CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "relabels": ({"relabels": True}, "its relabels is True, so remembers and corrects must be as well"),
    "relabels, remembers": ({"relabels": True, "remembers": True}, "its relabels is True, so remembers and corrects"),
    "keeps a network": ({"keeps_network": True}, "its keeps_network is True, so remembers must be as well"),
    "no network": ({"networks": 0}, "its networks is 0, and must be a whole number of at least 1"),
    "half a pass": ({"passes": 0.5}, "its passes is 0.5, and must be a whole number of at least 1"),
    "heads in a list": ({"heads": [("a", 3)]}, "its heads is [('a', 3)], and must be a tuple of pairs"),
    "a head alone": ({"heads": ("a", 3)}, "its heads is ('a', 3), and must be a tuple of pairs"),
    "an odd head": ({"heads": (("a.b", 3),)}, "its heads is (('a.b', 3),), and must be a tuple of pairs"),
    "a taken head": ({"heads": (("keys", 3),)}, "its heads is (('keys', 3),), and must be a tuple of pairs"),
    "a head twice": ({"heads": (("a", 3), ("a", 2))}, "its heads is (('a', 3), ('a', 2)), and must be"),
    "no output": ({"heads": (("a", 0),)}, "its heads is (('a', 0),), and must be a tuple of pairs"),
    "a rate": ({"learning_rates": {"mine": 0.1}}, "its learning_rates names 'mine', which must be notebook or"),
    "no view": ({"views": lambda self, run: []}, "its views returns [], and must return a list of some of none, flip"),
    "an unknown view": ({"views": lambda self, run: ["flop"]}, "its views returns ['flop'], and must return a list"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASSES)
def test_a_class_that_contradicts_itself_is_refused_when_it_is_loaded(case: str, mine: Callable[..., None]) -> None:
    members, sentence = CLASSES[case]
    mine(**members)
    with pytest.raises(ConfigError, match=f"^run config: 'method' is '{NAME}'; {re.escape(sentence)}.*\\.$"):
        build_method(RunConfig(method=NAME))


@pytest.mark.parametrize("name", METHODS)
def test_those_of_the_table_do_not(name: str) -> None:
    assert isinstance(build_method(RunConfig(method=name)), Method)


def _left(**values: Any) -> dict[str, Any]:
    """A method whose visits leave these."""

    def end(self: Any, visit: Any) -> None:
        for name, value in values.items():
            setattr(visit, name, value)

    return {"end": end}


ROWS = torch.arange(4)
ANNOUNCES = {"sends": lambda self, told, classes, width: {"c": Floats((3,))}}
REPORTS = {"reports": lambda self, told, classes: {"x": Number()}}
KEEPS = {"remembers": True, "corrects": True, "relabels": True}
RANKS = r"must be \(30,\) float32 and finite"
LABELS = r"must be \(30,\) int64 from 0 to 13"
VISITS: dict[str, tuple[dict[str, Any], str]] = {
    "sends unannounced": (_left(sends={"c": torch.zeros(3)}), "visit.sends has c, but sends announces nothing"),
    "announces unsent": (ANNOUNCES, "visit.sends has nothing, but sends announces c"),
    "another shape": ({**ANNOUNCES, **_left(sends={"c": torch.zeros(4)})}, r"visit.sends\['c'\] must be a tensor of s"),
    "not a tensor": ({**ANNOUNCES, **_left(sends={"c": np.zeros(3)})}, r"visit.sends\['c'\] must be a tensor of shape"),
    "an unknown number": (_left(metrics={"x": 1.0}), "visit.metrics is not what reports announces: 'x' is not among"),
    "a missing number": (REPORTS, "visit.metrics is not what reports announces: 'x' is missing"),
    "a tensor": ({**REPORTS, **_left(metrics={"x": torch.ones(())})}, r"reports announces: 'x' is tensor\(1.\); it"),
    "a large label": ({**KEEPS, **_left(labels=torch.full((30,), 14))}, f"visit.labels {LABELS}"),
    "few labels": ({**KEEPS, **_left(labels=torch.zeros(5).long())}, f"visit.labels {LABELS}"),
    "labels in between": ({"corrects": True, **_left(corrected=torch.zeros(30))}, f"visit.corrected {LABELS}"),
    "corrects": (_left(corrected=torch.zeros(30).long()), "visit.corrected is set, so corrects must be True"),
    "suspects": (_left(suspected=torch.zeros(30).bool()), "visit.suspected is set, so suspects must be True"),
    "suspected": ({"suspects": True, **_left(suspected=torch.zeros(30))}, r"visit.suspected must be \(30,\) bool"),
    "ranks": (_left(suspicion=torch.zeros(30)), "visit.suspicion is set, so suspects must be True"),
    "suspicion": ({"suspects": True, **_left(suspicion=torch.zeros(30).double())}, f"visit.suspicion {RANKS}"),
    "few suspicions": ({"suspects": True, **_left(suspicion=torch.zeros(29))}, f"visit.suspicion {RANKS}"),
    "listed suspicions": ({"suspects": True, **_left(suspicion=[0.0] * 30)}, f"visit.suspicion {RANKS}"),
    "no suspicion": ({"suspects": True, **_left(suspicion=torch.full((30,), math.nan))}, f"visit.suspicion {RANKS}"),
    "infinite": ({"suspects": True, **_left(suspicion=torch.full((30,), math.inf))}, f"visit.suspicion {RANKS}"),
    "uses more": (_left(used=31), "visit.used is 31; it must be a whole number from 0 to 30"),
    "uses less than none": (_left(used=-1), "visit.used is -1; it must be a whole number from 0 to 30"),
    "uses a tensor": (_left(used=torch.tensor(3)), r"visit.used is tensor\(3\); it must be a whole number"),
    "a plain state": ({"remembers": True, **_left(state={"x": 3})}, r"visit.state\['x'\] must be a tensor"),
    "no step": ({"steps": lambda self, visit: []}, "Mine chose no image for local epoch 1; one must be left"),
    "an empty step": ({"steps": lambda self, visit: [Step((ROWS[:0],))]}, "Mine chose no image for a step of local ep"),
    "no group": ({"steps": lambda self, visit: [Step(())]}, r"steps of Mine must return a list of Step\(\(rows, ...\)"),
    "rows alone": ({"steps": lambda self, visit: [ROWS]}, r"steps of Mine must return a list of Step\(\(rows, ...\)\)"),
    "a mask": ({"steps": lambda self, visit: [Step((ROWS > 1,))]}, "steps of Mine must return a list of Step"),
    "other rows": ({"steps": lambda self, visit: [Step((ROWS + 27,))]}, "steps of Mine use rows from 27 to 30; they "),
    "another network": ({"steps": lambda self, visit: [Step((ROWS,), 1)]}, "a step of Mine is for network 1, and ther"),
    "many steps": (
        {"steps": lambda self, visit: [Step((ROWS,))] * 8},
        "the steps of Mine use 32 images of 30; its passes is 1, and must be at least 2",
    ),
    "no mix": ({"mix": lambda self, seen, visit: []}, "mix of Mine must return a list of views, each"),
    "a view alone": ({"mix": lambda self, seen, visit: seen.inputs[0]}, "mix of Mine must return a list of views, eac"),
    "nothing mixed": ({"mix": lambda self, seen, visit: None}, "mix of Mine must return a list of views, each"),
    "no gradient": ({"loss": lambda self, batch, visit: torch.zeros(())}, "loss of Mine must return a scalar that dep"),
    "a loss each": ({"loss": lambda self, batch, visit: batch.logits.sum(1)}, "loss of Mine must return a scalar that"),
}  # fmt: skip


@pytest.mark.parametrize("case", VISITS)
def test_a_visit_that_cannot_be_used_ends_in_one_sentence(
    case: str, mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    members, sentence = VISITS[case]
    mine(**members)
    with pytest.raises(RunStoppedError, match=rf"gave a usable reply; client \d: [^|]*{sentence}[^|]*\.$"):
        _run(tmp_path, tiny_sample)


def test_what_a_visit_used_may_be_nothing_or_a_number_of_numpys(
    mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    for number, used in ((0, 0), (7, np.int64(7))):
        mine(**_left(used=used))
        lines = rounds_of(_run(tmp_path / str(number), tiny_sample, num_server_rounds=1))
        assert lines[0]["num-examples"] == 2 * max(1, number)


@pytest.mark.parametrize("strategy", ["fedavg", "multikrum", "fedmedian", "flwr.serverapp.strategy:FedAvg"])
def test_clients_may_report_different_numbers_and_arrays(
    strategy: str, mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    """Flower's strategies want the same metrics in all replies."""
    heard: list[tuple[list[int], list[int]]] = []

    class Half(ServerHalf):
        def tell(self, partition: int) -> dict[str, Any]:
            return {"even": partition % 2 == 0}

        def heard(self, server_round: int, replies: Any) -> None:
            heard.append((sorted(k for k in replies if "x" in replies[k]), []))

        def heard_arrays(self, server_round: int, arrays: Any) -> None:
            heard[-1][1].extend(sorted(arrays))

    def end(self: Any, visit: Any) -> None:
        if visit.told["even"]:
            visit.metrics["x"], visit.sends["c"] = 1.0, torch.ones(3)

    mine(
        end=end,
        reports=lambda self, told, classes: {"x": Number()} if told["even"] else {},
        sends=lambda self, told, classes, width: {"c": Floats((3,))} if told["even"] else {},
        on_server=lambda self: Half(),
    )
    _run(tmp_path, tiny_sample, strategy=strategy, clients=8, fraction_train=1.0, num_server_rounds=1)
    assert heard == [([0, 2, 4, 6], [0, 2, 4, 6])]


def _raise(*args: Any) -> None:
    raise KeyError("gone")


HALVES: dict[str, tuple[dict[str, Any], str]] = {
    "chooses a list": ({"choose": lambda self, r, c, u: c[:1]}, r"choose of .* returned \[0\]; it must return None, o"),
    "half a client": (
        {"choose": lambda self, r, c, u: Choice(c, cast(int, 1.5))}, "choose of .*; it must return None, or a Choice",
    ),
    "chooses nobody": ({"choose": lambda self, r, c, u: Choice(c, 0)}, "to be sampled; its choose decides that"),
    "strangers": ({"choose": lambda self, r, c, u: Choice([77], 1)}, "leaves none of 4 connected clients to be sample"),
    "tells nothing": ({"tell": lambda self, p: None}, "tell of .* returned None; it must return a dict of names to nu"),
    "tells NumPy": ({"tell": lambda self, p: {"x": np.float32(1)}}, r"tell of .* returned \{'x': .*\}; it must return"),
    "doubles": ({"tell_arrays": lambda self, p: {"x": np.ones(3)}}, "tell_arrays of .* arrays, float32 and finite"),
    "a tensor": ({"tell_arrays": lambda self, p: {"x": torch.ones(3)}}, "tell_arrays of .* arrays, float32 and finite"),
    "nan": ({"tell_arrays": lambda self, p: {"x": np.full(3, np.nan, np.float32)}}, "tell_arrays of .* and finite"),
    "odd metrics": ({"metrics": lambda self, r: {"x": None}}, "metrics of .* it must return a dict of names to number"),
    "odd tags": ({"noisy_clients": lambda self: {1: 0.5}}, "noisy_clients of .* must return None, or a mapping of p"),
    "tags a list": ({"noisy_clients": lambda self: [True]}, "noisy_clients of .* returned .*True.*; it must ret"),
    "odd shares": ({"wrong_labels": lambda self: {1: 1.5}}, "wrong_labels of .* a mapping of partitions to shares f"),
    "no shares": ({"wrong_labels": lambda self: None}, "wrong_labels of .* returned None; it must return a mapping of"),
    "odd state": ({"state": lambda self: {"x": 3}}, "state of .* it must return a dict of names to NumPy arrays of nu"),
    "asks": ({"before_round": lambda self, r, a, ask: ask("x", a)}, "whose server half asks for 'x', which its answer"),
    **{
        f"{hook} raises": (
            {"trains": True, hook: _raise}, rf"^{hook} of the server half of 'method' '{NAME}' raised KeyError: 'gone'"
            rf" \(.*test_faulty_classes.py, line \d+\)\.$",
        )
        for hook in (
            "prepare", "check_classes", "before_round", "tell", "tell_arrays", "choose", "heard", "train", "metrics",
            "noisy_clients", "wrong_labels", "state",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("case", HALVES)
def test_a_server_half_that_fails_ends_the_run_in_one_sentence(
    case: str, mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    members, sentence = HALVES[case]
    mine(members)
    with pytest.raises((RunStoppedError, ConfigError), match=sentence) as caught:
        _run(tmp_path, tiny_sample, num_server_rounds=1)
    assert str(caught.value).isprintable()


BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "no half": ({"on_server": lambda self: None}, "whose on_server returns NoneType; it must return a learning.server"),
    "no half at all": ({"on_server": _raise}, "whose on_server raised KeyError: 'gone'"),
    "a taken name": (
        {"reports": lambda self, told, classes: {"train-loss": Number()}}, "whose reports announces 'train-loss',",
    ),
    "reports fails": ({"reports": _raise}, "whose reports raised KeyError: 'gone'"),
    "sends fails": ({"sends": _raise}, "whose sends raised KeyError: 'gone'"),
    "a shape": ({"sends": lambda self, t, c, w: {"c": (3,)}}, r"whose sends announces 'c' as \(3,\); it must be a le"),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFORE)
def test_what_the_server_can_know_it_says_before_clients_train(
    case: str, mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    members, sentence = BEFORE[case]
    mine(**members, begin=lambda self, visit: pytest.fail("a client trains"))
    with pytest.raises(ConfigError, match=f"^run config: 'method' is '{NAME}', {sentence}.*\\.$"):
        _run(tmp_path, tiny_sample)


def test_a_half_that_trains_must_say_so(mine: Callable[..., None], tmp_path: Path, tiny_sample: Path) -> None:
    mine({"train": lambda self, server_round, model, workbench: None})
    with pytest.raises(
        ConfigError, match=r"whose on_server returns Half; it has a train, so its trains must be True\.$"
    ):
        _run(tmp_path, tiny_sample)


def test_a_half_that_fails_before_the_next_round_does_not_cost_the_last_one(
    mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    """Messages of round 2 go out before round 1 is on disk."""

    def reports(self: Any, told: Any, classes: int) -> dict[str, Any]:
        return {} if told["round"] == 1 else {"train-loss": Number()}

    def before_round(self: Any, server_round: int, arrays: Any, ask: Any) -> None:
        self.server_round = server_round

    mine({"before_round": before_round, "tell": lambda self, partition: {"round": self.server_round}}, reports=reports)
    with pytest.raises(ConfigError, match="'train-loss', which every reply has anyway"):
        _run(tmp_path, tiny_sample)
    assert [line["round"] for line in rounds_of(tmp_path / "run")] == [1]
    assert (tmp_path / "run" / "checkpoints" / "round-00001.safetensors").is_file()


class Counting(ServerHalf):
    """Writes into the array that it has handed out as its state."""

    seen: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self.counted = np.zeros(1)

    def before_round(self, server_round: int, arrays: Any, ask: Any) -> None:
        self.counted += 1

    def metrics(self, server_round: int) -> dict[str, float]:
        return {"counted": np.float32(self.counted[0]), "round": 77.0}  # type: ignore[dict-item]

    def state(self) -> dict[str, np.ndarray]:
        return {"counted": self.counted}

    def load_state(self, state: Any) -> None:
        self.seen.append(float(state["counted"][0]))
        self.counted = state["counted"].copy()


def test_state_and_metrics_are_those_before_the_next_round_began(
    mine: Callable[..., None], tmp_path: Path, tiny_sample: Path
) -> None:
    """Messages of the next round go out before this one's checkpoint and line are written."""
    mine(on_server=lambda self: Counting())
    run_dir = _run(tmp_path, tiny_sample, num_server_rounds=3)
    lines = rounds_of(run_dir)
    assert [(line["round"], line["counted"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    Counting.seen.clear()
    _run(tmp_path, tiny_sample, num_server_rounds=3, resume=str(run_dir / "checkpoints" / "round-00002.safetensors"))
    assert Counting.seen == [2.0]
