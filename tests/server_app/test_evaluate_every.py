"""`evaluate-every`: rounds without evaluation train the same model, and everything that reads metrics knows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from config.run_config import RunConfig
from server_app import early_stop, rounds
from server_app.callbacks import History
from server_app.callbacks.pictures import Pictures
from server_app.checkpoint_file import load_checkpoint
from server_app.clean_sets import CleanSet
from server_app.exchange import Exchange, Sent
from server_app.stopping import RunStoppedError
from server_app.traffic import Traffic
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROUNDS, EVERY, EVALUATED = 7, 3, [3, 6, 7]
OF_EVALUATION = {
    "test-accuracy", "test-loss", "val-accuracy", "val-loss", "macro-f1", "per-class-recall", "confusion-matrix",
    "eval-accuracy", "eval-loss",
}  # fmt: skip


def _settings(sample: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data_dir": str(sample), "model": "cnn", "image_size": 16, "num_server_rounds": ROUNDS, "evaluate_every": EVERY,
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def seldom(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("seldom"), **_settings(tiny_sample))


def test_the_default_evaluates_every_round() -> None:
    assert all(early_stop.is_evaluated(number, RunConfig()) for number in range(1, 15))


def test_a_multiple_and_the_last_round_are_evaluated_and_nothing_else_changes(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_server: list[ArrayRecord] = []
    on_clients: list[int] = []
    evaluate, ask = CleanSet.evaluate, Exchange.evaluate

    def evaluated(self: CleanSet, arrays: ArrayRecord) -> Any:
        on_server.append(arrays)
        return evaluate(self, arrays)

    def asked(self: Exchange, server_round: int, arrays: ArrayRecord, traffic: Traffic) -> Any:
        on_clients.append(server_round)
        return ask(self, server_round, arrays, traffic)

    always = run_in_process(tmp_path / "1", **_settings(tiny_sample, evaluate_every=1, fraction_evaluate=0.5))
    monkeypatch.setattr(CleanSet, "evaluate", evaluated)
    monkeypatch.setattr(Exchange, "evaluate", asked)
    sometimes = run_in_process(tmp_path / "3", **_settings(tiny_sample, fraction_evaluate=0.5))
    assert on_clients == EVALUATED
    assert len(on_server) == 2 * len(EVALUATED)  # clean test and clean val
    (lines, weights), (others, same_weights) = outcome_of(always), outcome_of(sometimes)
    assert weights == same_weights
    for line, other in zip(lines, others, strict=True):
        if line["round"] not in EVALUATED:
            assert line.keys() >= OF_EVALUATION  # and there are no others
            line = {key: value for key, value in line.items() if key not in OF_EVALUATION}
            line |= {"test-accuracy": None, "test-loss": None}
        assert other == line
    assert (sometimes / "accuracy.png").is_file()


@pytest.mark.parametrize("message", [3, 5, 7, 9, 11, 13])  # of two in each round, the first in rounds 2 to 7
def test_a_run_cut_off_in_any_round_ends_the_same(
    tmp_path: Path, tiny_sample: Path, seldom: Path, message: int
) -> None:
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=cut_off_in(message), **_settings(tiny_sample))
    run_dir = run_in_process(tmp_path, **_settings(tiny_sample, resume="auto"))
    assert outcome_of(run_dir) == outcome_of(seldom)
    one, two = (load_checkpoint(run / "checkpoints" / "best.safetensors") for run in (run_dir, seldom))
    assert one.server_round == two.server_round
    assert one.best == two.best


def test_the_best_model_is_one_of_those_that_were_evaluated(seldom: Path) -> None:
    best = load_checkpoint(seldom / "checkpoints" / "best.safetensors")
    by_accuracy = [(line["val-accuracy"], -line["round"]) for line in rounds_of(seldom) if "val-accuracy" in line]
    assert (best.best, best.server_round) == ((-max(by_accuracy)[1], max(by_accuracy)[0]), -max(by_accuracy)[1])
    assert sorted(path.name for path in (seldom / "checkpoints").iterdir()) == [
        "best.safetensors", "round-00006.safetensors", "round-00007.safetensors",
    ]  # fmt: skip


def test_pictures_have_a_point_where_there_was_an_evaluation(tmp_path: Path, seldom: Path) -> None:
    pictures = Pictures(tmp_path, ("a", "b"), "title")
    pictures.on_start(History(ROUNDS, rounds_of(seldom)))
    assert list(pictures._accuracies) == EVALUATED


def test_a_model_that_is_not_finite_stops_the_run_in_any_round(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregate = rounds.RoundLoop._aggregate

    def diverge(self: rounds.RoundLoop, sent: Sent) -> Any:
        arrays, metrics = aggregate(self, sent)
        if sent.server_round == 2:  # which is not evaluated
            arrays["fc.bias"] = Array(np.full(14, np.inf, dtype=np.float32))
        return arrays, metrics

    monkeypatch.setattr(rounds.RoundLoop, "_aggregate", diverge)
    with pytest.raises(RunStoppedError, match="round 2: the new global model holds a value that is not finite"):
        run_in_process(tmp_path, **_settings(tiny_sample))
    assert [line["round"] for line in rounds_of(tmp_path / "run")] == [1]
