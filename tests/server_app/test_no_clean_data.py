"""`test-split` and `val-split` in whole runs: what is measured, shown and picked, and that no kill changes it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from matplotlib.image import imread

from client_app.app import app as client_app
from config.measure import CLEAN_TEST, measure_of
from config.run_config import ConfigError, RunConfig
from messages import keys
from server_app.callbacks.progress import HEADINGS, WIDTH, about_measure
from server_app.checkpoint_file import load_checkpoint
from server_app.clean_sets import CleanSet
from server_app.run_record import read_record
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROUNDS = 7
CLIENTS = 2
OWN: dict[str, Any] = {"eval_split": "own", "fraction_evaluate": 1.0, "holdout_fraction": 0.2}
WAVE: dict[str, Any] = {"val_split": "label-wave", "inspection": "before"}
RUNS: dict[str, dict[str, Any]] = {
    f"{test}, {name}": {"test_split": test, **values}
    for test in ("clean_test", "none")
    for name, values in {
        "clean_val": {"val_split": "clean_val"},
        "noisy": {"val_split": "noisy", **OWN},
        "label-wave": WAVE,
        "label-wave, own": {**WAVE, "holdout_fraction": 0.2},
        "nothing": {"val_split": "none"},
    }.items()
}


def settings(sample: Path, **changes: Any) -> dict[str, Any]:
    common = {"model": "cnn", "image_size": 16, "learning_rate": 0.05, "num_server_rounds": ROUNDS}
    return {"data_dir": str(sample), "clients": CLIENTS, "fraction_train": 1.0, **common, **changes}


Whole = Callable[[str], tuple[Path, list[str]]]


@pytest.fixture(scope="module")
def whole(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The folder of a run that nothing disturbs, made once, and what it logged."""
    runs: dict[str, tuple[Path, list[str]]] = {}

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    said: list[str] = []

    def run(name: str) -> tuple[Path, list[str]]:
        if name not in runs:
            said.clear()
            logging.getLogger("flwr").addHandler(handler := Kept())
            try:
                folder = run_in_process(
                    tmp_path_factory.mktemp("whole"), pictures=True, **settings(tiny_sample, **RUNS[name])
                )
            finally:
                logging.getLogger("flwr").removeHandler(handler)
            runs[name] = folder, list(said)
        return runs[name]

    return run


def first_minimum(lines: list[dict[str, Any]], patience: int = 5) -> int | None:
    """The round that label-wave picks, worked out once more from metrics.jsonl."""
    changes = [(line["round"], line[keys.CHANGED]) for line in lines if keys.CHANGED in line]
    means = {changes[at][0] - 1: np.mean([one for _, one in changes[at - 2 : at + 1]]) for at in range(2, len(changes))}
    best: int | None = None
    for number, mean in means.items():
        if best is None or mean < means[best]:
            best = number
        elif number - best >= patience:
            break
    return best


@pytest.mark.parametrize("name", RUNS)
def test_metrics_say_what_was_measured(whole: Whole, name: str) -> None:
    lines, values = rounds_of(whole(name)[0]), RUNS[name]
    tested, split = values["test_split"] != "none", values["val_split"]
    assert len(lines) == ROUNDS
    for line in lines:
        assert (line["test-accuracy"] is not None, line["test-loss"] is not None) == (tested, tested)
        assert ("confusion-matrix" in line, "macro-f1" in line) == (tested, tested)
        assert ("val-accuracy" in line, "val-loss" in line) == (split in ("clean_val", "noisy"),) * 2
        if split == "noisy":
            assert (line["val-accuracy"], line["val-loss"]) == (line["eval-accuracy"], line["eval-loss"])
        assert (keys.CHANGED in line) == (split == "label-wave" and line["round"] > 1)
        assert (keys.OWN_ACCURACY_BEFORE in line) == ("holdout_fraction" in values)


@pytest.mark.parametrize("name", RUNS)
def test_the_best_model_is_that_of_the_round_that_is_picked(whole: Whole, name: str) -> None:
    run_dir, split = whole(name)[0], RUNS[name]["val_split"]
    lines, path = rounds_of(run_dir), run_dir / "checkpoints" / "best.safetensors"
    if split == "none":
        assert not path.exists()
        assert load_checkpoint(run_dir / "checkpoints" / f"round-{ROUNDS:05}.safetensors").best is None
        return
    scored = [(-line["val-accuracy"], line["round"]) for line in lines if "val-accuracy" in line]
    picked = first_minimum(lines) if split == "label-wave" else min(scored)[1]
    assert load_checkpoint(path).server_round == picked
    last = load_checkpoint(run_dir / "checkpoints" / f"round-{ROUNDS:05}.safetensors")
    assert last.best is not None
    assert last.best[0] == picked


def test_the_best_model_of_label_wave_is_the_one_that_a_shorter_run_ends_with(
    whole: Whole, tmp_path: Path, tiny_sample: Path
) -> None:
    run_dir, _ = whole("none, label-wave")
    best = load_checkpoint(run_dir / "checkpoints" / "best.safetensors")
    assert 3 <= best.server_round < ROUNDS
    changes = {"num_server_rounds": best.server_round, "val_split": "none"}  # of three rounds, label-wave picks none
    shorter = settings(tiny_sample, **{**RUNS["none, label-wave"], **changes})
    run_in_process(tmp_path, **shorter)
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / f"round-{best.server_round:05}.safetensors")
    assert last.model.keys() == best.model.keys()
    assert all(np.array_equal(best.model[name], last.model[name]) for name in best.model)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_cut_off_ends_as_if_nothing_had_happened(
    whole: Whole, tmp_path: Path, tiny_sample: Path, name: str
) -> None:
    common = settings(tiny_sample, **RUNS[name])
    for _ in range(2):  # in rounds 3 and 5 or soon after, before and after label-wave's first score
        with pytest.raises(CutOffError):
            run_in_process(tmp_path, handler=cut_off_in(6), **common, resume="auto")
    run_in_process(tmp_path, **common, resume="auto")
    assert outcome_of(tmp_path / "run") == outcome_of(whole(name)[0])
    best, other = (one / "checkpoints" / "best.safetensors" for one in (tmp_path / "run", whole(name)[0]))
    assert best.exists() == other.exists()
    if best.exists():
        one, wanted = load_checkpoint(best), load_checkpoint(other)
        assert (one.server_round, one.best) == (wanted.server_round, wanted.best)
        assert all(np.array_equal(one.model[key], wanted.model[key]) for key in wanted.model)


@pytest.mark.parametrize("name", RUNS)
def test_the_pictures_show_what_there_is(whole: Whole, name: str) -> None:
    run_dir, values = whole(name)[0], RUNS[name]
    lists = values["test_split"] != "none" or values["val_split"] == "clean_val"
    measured = lists or "holdout_fraction" in values
    wave = values["val_split"] == "label-wave"
    expected = {"accuracy.png": measured, "confusion.png": lists, "prediction-changes.png": wave}
    assert {picture: (run_dir / picture).exists() for picture in expected} == expected
    for picture in (one for one, there in expected.items() if there):
        assert np.std(imread(run_dir / picture)) > 0.05


@pytest.mark.parametrize("name", RUNS)
def test_the_log_says_what_the_table_shows(whole: Whole, name: str) -> None:
    run_dir, said = whole(name)
    values = RunConfig(**RUNS[name]).to_flat()
    measure, wave = measure_of(values), values["val-split"] == "label-wave"
    about = about_measure(measure, wave)
    told = [line for line in said if line in about]
    assert told == about
    assert " ".join(told).count(". ") == (measure is not CLEAN_TEST) + wave  # and then the page's name
    assert all(len(line) <= WIDTH for line in told)
    at = next(number for number, line in enumerate(said) if line.lstrip().startswith("round "))
    assert all(said.index(line) < at for line in told)
    heading = HEADINGS[measure.accuracy] if measure else "changes" if wave else "accuracy"
    assert said[at].split("best")[0].split(maxsplit=1)[1].strip() == heading
    rows = [line for line in said if f"/{ROUNDS} " in line]
    key = measure.accuracy or (keys.CHANGED if wave else "")
    for line, row in zip(rounds_of(run_dir), rows, strict=True):
        shown = row.split()[1]
        assert shown == ("-" if line.get(key) is None else f"{100 * line[key]:.2f}%".replace("100.00", "100.0"))
        assert len(row) <= 68


def test_headings_fit_their_column() -> None:
    assert all(len(heading) <= 8 for heading in HEADINGS.values())


def test_no_test_set_is_opened(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CleanSet, "__init__", lambda *args: pytest.fail("a clean list was decoded"))
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, **RUNS["none, nothing"], num_server_rounds=1))
    record = read_record(run_dir)
    assert record is not None
    assert record.data.keys() == {"train"}
    assert load_checkpoint(run_dir / "checkpoints" / "round-00001.safetensors").lists == {}


def test_a_round_in_which_no_client_evaluates_has_no_score(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "evaluate" and "0" in str(context.node_config[keys.PARTITION_ID]):
            reply.content.metric_records[keys.METRICS][keys.EVAL_ACCURACY] = 2.0
        return reply

    run_dir = run_in_process(
        tmp_path, handler=handler, **{**settings(tiny_sample, **RUNS["none, noisy"], num_server_rounds=2), "clients": 1}
    )
    assert ["val-accuracy" in line for line in rounds_of(run_dir)] == [False, False]
    assert not (run_dir / "checkpoints" / "best.safetensors").exists()
    assert not (run_dir / "accuracy.png").exists() or rounds_of(run_dir)[0].get("own-accuracy-before") is not None


def test_label_wave_ends_a_run_before_its_next_round_is_sent(whole: Whole, tmp_path: Path, tiny_sample: Path) -> None:
    """How many predictions have changed is known before a round is evaluated, so no visit is in vain."""
    trained: list[int] = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            trained.append(int(message.content.config_records[keys.CONFIG][keys.SERVER_ROUND]))  # type: ignore[arg-type]
        return client_app(message, context)

    common = settings(tiny_sample, **{**RUNS["clean_test, label-wave"], "num_server_rounds": 30, "patience": 1})
    run_dir = run_in_process(tmp_path, handler=handler, **common)
    lines, record = rounds_of(run_dir), read_record(run_dir)
    assert record is not None
    assert len(lines) < 30, "predictions kept changing less and less"
    assert max(trained) == len(lines)
    best = first_minimum(lines, patience=1)
    assert best == len(lines) - 2
    assert record.reason == (
        f"Stopped after round {len(lines)} of 30: predictions changed least in round {best}, and not less in 1 round"
        " since ('patience')."
    )
    assert load_checkpoint(run_dir / "checkpoints" / "best.safetensors").server_round == best
    # Resumed with the same rule it ends at once, and with a larger one it goes on.
    run_in_process(tmp_path, handler=handler, **{**common, "resume": "auto"})
    assert rounds_of(run_dir) == lines
    run_in_process(tmp_path, **{**common, "resume": "auto", "patience": 30, "num_server_rounds": len(lines) + 1})
    assert len(rounds_of(run_dir)) == len(lines) + 1


@pytest.mark.parametrize("changes", [{"test_split": "clean_test"}, {"val_split": "none"}])
def test_a_resumed_run_keeps_its_lists(whole: Whole, tiny_sample: Path, changes: dict[str, str]) -> None:
    run_dir, _ = whole("none, clean_val")
    [key] = changes
    with pytest.raises(ConfigError, match=f"needs the config of the resumed run, but '{key.replace('_', '-')}' was"):
        run_in_process(
            run_dir.parent, **{**settings(tiny_sample, **RUNS["none, clean_val"]), **changes, "resume": "auto"}
        )


def test_evaluated_rounds_follow_from_the_config(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(
        tmp_path, **settings(tiny_sample, **RUNS["none, noisy"], num_server_rounds=5, evaluate_every=2)
    )
    assert ["eval-accuracy" in line for line in rounds_of(run_dir)] == [False, True, False, True, True]
    assert all("own-accuracy-before" in line for line in rounds_of(run_dir))


def test_a_best_model_that_a_kill_left_behind_is_set_aside(whole: Whole, tmp_path: Path, tiny_sample: Path) -> None:
    """Cut off between a round's checkpoint and the copy of what it made the best."""
    name = "none, clean_val"
    common = settings(tiny_sample, **RUNS[name])
    run_dir = run_in_process(tmp_path, **{**common, "num_server_rounds": 3})
    folder = run_dir / "checkpoints"
    picked = load_checkpoint(folder / "round-00003.safetensors").best
    assert picked is not None
    other = next(one for one in (3, 2) if one != picked[0])
    (folder / "best.safetensors").write_bytes((folder / f"round-{other:05}.safetensors").read_bytes())
    run_in_process(tmp_path, **{**common, "resume": "auto", "num_server_rounds": 3})
    best = folder / "best.safetensors"
    assert not best.exists() or load_checkpoint(best).server_round == picked[0]
    assert load_checkpoint(run_dir / "set-aside" / "best.safetensors.1").server_round == other
    assert json.loads((run_dir / "resumes.jsonl").read_text())["round"] == 3


def test_a_run_that_picks_nothing_says_so_at_its_end(
    whole: Whole, tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("flwr").propagate = True
    common = settings(tiny_sample, **RUNS["none, label-wave"], num_server_rounds=4)
    run_dir = run_in_process(
        tmp_path, **{**common, "clients": 4, "fraction_train": 0.25}
    )  # nearly all visits are first
    assert sum(keys.CHANGED in line for line in rounds_of(run_dir)) < 3, "choose another seed"
    [line] = [line for line in caplog.messages if "No round has a number" in line]
    assert line.startswith("No round has a number by which 'val-split' label-wave could pick it, so there is no best")
    assert not any("No round has a number" in line for name in RUNS for line in whole(name)[1])


def test_a_best_model_that_was_deleted_is_missed(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("flwr").propagate = True
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, **RUNS["none, label-wave"]))
    folder = run_dir / "checkpoints"
    best = load_checkpoint(folder / "best.safetensors").server_round
    for gone in ("best.safetensors", f"round-{best:05}.safetensors"):
        (folder / gone).unlink(missing_ok=True)
    assert not caplog.messages
    common = settings(tiny_sample, **{**RUNS["none, label-wave"], "num_server_rounds": ROUNDS + 1})
    run_in_process(tmp_path, **common, resume="auto")
    [line] = [line for line in caplog.messages if "no longer" in line]
    assert line.startswith(
        f"The model of round {best}, which is the best so far, is no longer in {folder}; there is no"
    )
