"""A run that is cut off anywhere resumes to the same end, in one process and without Ray."""

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import ArrayRecord, Context, Message, RecordDict

from client_app.app import app as client_app
from config.run_config import ConfigError
from server_app.callbacks import Callback, RoundResult
from server_app.callbacks import checkpoints as checkpoints_module
from server_app.checkpoint_file import load_checkpoint, save_checkpoint
from server_app.stopping import RunStoppedError
from tests.fakes import TIMES, CutOffError, cut_off_in, rounds_of, run_in_process


@pytest.fixture(scope="module")
def undisturbed(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("undisturbed"), **settings(tiny_sample))


def settings(sample: Path, **changes: Any) -> dict[str, Any]:
    return {"data_dir": str(sample), "model": "cnn", "num_server_rounds": 4, "image_size": 16, **changes}


def weights(run_dir: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run_dir / "model.safetensors")


def without_times(run_dir: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in rounds_of(run_dir)]


def assert_same_run(run_dir: Path, other: Path) -> None:
    assert without_times(run_dir) == without_times(other)
    one, two = weights(run_dir), weights(other)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("resume", ["auto", "auto by name", "path", "checkpoint"])
def test_a_run_cut_off_in_any_round_ends_the_same(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, resume: str
) -> None:
    names = {"run_name": ""} if resume == "auto" else {}
    with pytest.raises(CutOffError):  # in round 2
        run_in_process(tmp_path, handler=cut_off_in(3), **settings(tiny_sample, **names))
    [run_dir] = [path for path in tmp_path.iterdir() if path.is_dir()]
    value = {
        "path": str(run_dir),
        "checkpoint": str(run_dir / "checkpoints" / "round-00001.safetensors"),
    }.get(resume, "auto")
    with pytest.raises(CutOffError):  # in round 4
        run_in_process(tmp_path, handler=cut_off_in(5), **settings(tiny_sample, resume=value, **names))
    value = str(run_dir) if resume == "checkpoint" else value
    run_in_process(tmp_path, **settings(tiny_sample, resume=value, **names))
    assert_same_run(run_dir, undisturbed)
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == [
        "best.safetensors", "round-00003.safetensors", "round-00004.safetensors",
    ]  # fmt: skip


def test_cut_off_between_two_writes_of_a_round(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of round 2 is in metrics.jsonl, its checkpoint is not."""

    def cut(path: Path, checkpoint: Any) -> None:
        if checkpoint.server_round == 2:
            raise CutOffError
        save_checkpoint(path, checkpoint)

    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(checkpoints_module, "save_checkpoint", cut)
        run_in_process(tmp_path, **settings(tiny_sample))
    run_dir = tmp_path / "run"
    assert [line["round"] for line in rounds_of(run_dir)] == [1, 2]
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "test-acc')
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto"))
    assert_same_run(run_dir, undisturbed)


def test_cut_off_before_the_first_checkpoint(tmp_path: Path, tiny_sample: Path, undisturbed: Path) -> None:
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=cut_off_in(2), **settings(tiny_sample))
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto"))
    assert_same_run(tmp_path / "run", undisturbed)


def test_with_nothing_to_resume_a_new_run_starts(tmp_path: Path, tiny_sample: Path, undisturbed: Path) -> None:
    assert_same_run(run_in_process(tmp_path, **settings(tiny_sample, resume="auto")), undisturbed)


def test_a_finished_run_can_be_given_more_rounds(tmp_path: Path, tiny_sample: Path, undisturbed: Path) -> None:
    run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=2))
    run_in_process(tmp_path, **settings(tiny_sample, resume=str(tmp_path / "run")))
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_damaged_checkpoint_is_logged_and_the_one_before_is_used(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=3))
    newest = tmp_path / "run" / "checkpoints" / "round-00003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    logging.getLogger("flwr").propagate = True
    with caplog.at_level("INFO"):
        run_in_process(tmp_path, **settings(tiny_sample, resume="auto"))
    assert f"{newest} cannot be read" in caplog.text
    assert "using the checkpoint before it" in caplog.text
    assert "Resuming after round 2 of 4." in caplog.text
    assert_same_run(tmp_path / "run", undisturbed)


def test_settings_that_change_nothing_may_change(tmp_path: Path, tiny_sample: Path, undisturbed: Path) -> None:
    run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=1))
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "run", moved / "run")
    changed = settings(tiny_sample, resume=str(moved / "run"), cache_gib=0.0, num_server_rounds=4)
    run_in_process(tmp_path / "unused", **changed)
    assert_same_run(moved / "run", undisturbed)
    assert not (tmp_path / "unused").exists()


def test_another_config_is_refused_key_by_key(tmp_path: Path, tiny_sample: Path) -> None:
    run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=2))
    before = _times(tmp_path)
    for resume in ("auto", str(tmp_path / "run")):
        with pytest.raises(ConfigError) as caught:
            run_in_process(tmp_path, **settings(tiny_sample, resume=resume, seed=9, learning_rate=0.5))
        assert str(caught.value) == (
            "run config: 'resume' needs the config of the resumed run, but 'learning-rate' was 0.004 and is now 0.5,"
            " 'seed' was 1 and is now 9."
        )
        with pytest.raises(ConfigError, match="'num-server-rounds' is 1, but the resumed run has finished 2 rounds"):
            run_in_process(tmp_path, **settings(tiny_sample, resume=resume, num_server_rounds=1))
    assert _times(tmp_path) == before


def _times(folder: Path) -> dict[Path, int]:
    """When each file was last written, except those that say who is there."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_other_clients_are_refused(tmp_path: Path, tiny_sample: Path) -> None:
    run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=1))
    with pytest.raises(ConfigError, match="the clients are not those of that run: their number or their images"):
        run_in_process(tmp_path, clients=5, **settings(tiny_sample, resume="auto"))


def test_a_path_that_cannot_be_looked_at_is_refused(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(ConfigError, match=r"it must be auto, or the absolute path of a run's folder"):
        run_in_process(tmp_path, **settings(tiny_sample, resume=str(tmp_path / ("x" * 300))))


@pytest.mark.parametrize("make", [None, "empty", "only config"])
def test_a_path_without_a_run_is_refused(tmp_path: Path, tiny_sample: Path, make: str | None) -> None:
    place = tmp_path / "nothing"
    if make:
        place.mkdir()
    if make == "only config":
        (place / "config.toml").write_text("seed = 1\n")
    with pytest.raises(
        ConfigError, match=r"'resume' is '.*nothing', where there is no (run with a config|usable check)"
    ):
        run_in_process(tmp_path, **settings(tiny_sample, resume=str(place)))


def test_the_best_model_is_chosen_on_validation(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(tmp_path, **settings(tiny_sample))
    accuracies = [line["val-accuracy"] for line in rounds_of(run_dir)]
    best = load_checkpoint(run_dir / "checkpoints" / "best.safetensors")
    assert best.server_round == 1 + int(np.argmax(accuracies))
    assert best.best == (best.server_round, max(accuracies))

    without = run_in_process(tmp_path / "without", **settings(tiny_sample, val_split="none"))
    assert "val-accuracy" not in rounds_of(without)[0]
    assert not (without / "checkpoints" / "best.safetensors").exists()


def test_too_few_replies_stop_the_run_which_can_be_resumed(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            calls.append(1)
            if len(calls) in (4, 5):  # the second client of round 2, and its retry
                message = broken(message)
        return client_app(message, context)

    logging.getLogger("flwr").propagate = True
    strict = settings(tiny_sample, min_reply_fraction=0.75)
    with caplog.at_level("INFO"), pytest.raises(RunStoppedError) as caught:
        run_in_process(tmp_path, handler=handler, **strict)
    assert str(caught.value).startswith(
        "round 2: only 1 of 2 clients gave a usable reply, fewer than 'min-reply-fraction' 0.75 requires"
    )
    assert f"-c \"resume='{tmp_path / 'run'}'\"" in caplog.text
    assert [line["round"] for line in rounds_of(tmp_path / "run")] == [1]
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [failure["round"] for failure in failures] == [2, 2]
    assert "ValueError" in failures[0]["reason"]
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto", min_reply_fraction=0.75))
    assert_same_run(tmp_path / "run", undisturbed)
    assert (tmp_path / "run" / "failures.jsonl").read_text() == ""


def test_a_client_that_fails_once_is_retried(tmp_path: Path, tiny_sample: Path) -> None:
    asked: list[int] = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            asked.append(int(context.node_config["partition-id"]))
            if len(asked) == 1:
                message = broken(message)
        return client_app(message, context)

    run_dir = run_in_process(tmp_path, handler=handler, **settings(tiny_sample, num_server_rounds=1))
    assert asked == [asked[0], asked[1], asked[0]]
    [line] = rounds_of(run_dir)
    assert line["failed-partitions"] == []
    assert line["num-examples"] == 60
    [failure] = [json.loads(entry) for entry in (run_dir / "failures.jsonl").read_text().splitlines()]
    assert failure["partition"] == asked[0]


def broken(message: Message) -> Message:
    """The message without one of its weights, so that loading the rest raises a ValueError in the client."""
    kept = {name: array for name, array in message.content.array_records["arrays"].items() if name != "fc.weight"}
    other = copy.copy(message)
    other.content = RecordDict({"arrays": ArrayRecord(kept), "config": message.content.config_records["config"]})
    return other


def test_callbacks_have_three_hooks_which_may_be_left_out() -> None:
    class Silent(Callback):
        pass

    hooks = {name for name, value in vars(Callback).items() if callable(value) and not name.startswith("_")}
    assert hooks == {"on_start", "after_round", "on_end"}
    Silent().after_round(RoundResult.__new__(RoundResult))
