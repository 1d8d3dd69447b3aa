"""`run.json`: what a run says of itself from its first start to its end, whatever happens to it or to the file."""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, Message

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.release import open_release, training_split
from messages.fingerprint import running_code
from server_app import recording
from server_app.callbacks.checkpoints import Checkpoints
from server_app.checkpoint_file import load_checkpoint
from server_app.recording import Recorder, data_of, machine
from server_app.resume import Start
from server_app.run_record import RunRecord, read_record, write_record
from server_app.stopping import RunStoppedError
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process
from tests.server_app.conftest import ROUNDS
from tests.server_app.test_resume import broken, settings
from tests.server_app.test_run_folder import resume

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def record_of(run_dir: Path) -> RunRecord:
    record = read_record(run_dir)
    assert record is not None
    return record


def test_a_run_says_what_it_was_made_of(finished_run: Path, tiny_sample: Path) -> None:
    record, release = record_of(finished_run), open_release(tiny_sample)
    checkpoint = load_checkpoint(finished_run / "checkpoints" / f"round-{ROUNDS:05}.safetensors")
    assert re.fullmatch(TIME, record.started)
    assert re.fullmatch(TIME, record.ended)
    assert record.started <= record.ended
    assert record == RunRecord(
        run=checkpoint.run,
        flower_run="1",
        started=record.started,
        ended=record.ended,
        how="finished",
        reason="",
        code=[running_code()],
        versions={name: version(name) for name in ("flwr", "torch", "torchvision", "numpy")},
        machine=machine(),
        data={
            "clean_test": release.split("clean_test").digest,
            "clean_val": release.split("clean_val").digest,
            "train": training_split(release, "noisy").digest,
        },
        clients=4,
        held=hashlib.sha256(checkpoint.roll.encode()).hexdigest()[:16],
    )


def test_a_machine_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine()
    assert list(found) == ["cpu", "cores", "gpu", "python", "system"]
    assert all(isinstance(value, str) for value in found.values())
    assert found["cpu"]
    assert int(found["cores"]) >= 1
    names = ["NVIDIA H100", "NVIDIA A100", "NVIDIA H100"]
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 3, get_device_name=names.__getitem__))
    assert machine()["gpu"] == "2 x NVIDIA H100, NVIDIA A100"

    def fails(number: int) -> str:
        raise RuntimeError("the driver is broken")

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 3, get_device_name=fails))
    assert machine()["gpu"] == ""


def test_a_server_without_the_list_that_clients_hold_leaves_it_out(tmp_path: Path, tiny_sample: Path) -> None:
    release = open_release(shutil.copytree(tiny_sample, tmp_path / "release"))
    lists = {"clean_test": "a"}
    assert data_of(release, RunConfig(train_split="clean"), lists)["train"] == release.split("clean_train").digest
    (tmp_path / "release" / "noisy_train_key_list.txt").write_text("")
    assert data_of(open_release(tmp_path / "release"), RunConfig(), lists) == lists


def test_runs_share_who_holds_what_if_seed_and_partition_are_the_same(tmp_path: Path, tiny_sample: Path) -> None:
    def held(name: str, **changes: Any) -> str:
        return record_of(
            run_in_process(tmp_path, run_name=name, **settings(tiny_sample, num_server_rounds=1, **changes))
        ).held

    first = held("first")
    assert held("method", method="elr", learning_rate=0.1) == first
    assert len({first, held("seed", seed=2), held("noise", label_noise="symmetric", label_noise_args="rate=0.4")}) == 3


def test_while_a_run_goes_on_and_after_a_kill_nothing_says_that_it_has_ended(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunRecord] = []

    def look(message: Message, context: Context) -> Message:
        seen.append(record_of(tmp_path / "run")) if message.metadata.message_type == "train" else None
        return killed(message, context)

    killed = cut_off_in(3)
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=look, **settings(tiny_sample))
    first = record_of(tmp_path / "run")
    assert all(record == first for record in seen)
    assert (first.ended, first.how, first.reason) == ("", "", "")

    seen.clear()
    killed = client_app
    monkeypatch.setattr(recording, "running_code", lambda: "0123456789abcdef")
    monkeypatch.setattr(recording, "_now", lambda: "2030-01-01T00:00:00+00:00")
    run_in_process(tmp_path, handler=look, **settings(tiny_sample, resume="auto"))
    began = replace(first, code=[*first.code, "0123456789abcdef"])
    assert all(record == began for record in seen)
    assert record_of(tmp_path / "run") == replace(began, how="finished", ended="2030-01-01T00:00:00+00:00")


def begin(run_dir: Path, run: str = "a", flower_run: str = "2") -> Recorder:
    recorder = Recorder()
    recorder.begin(Start(run_dir, run=run), flower_run, {}, [])
    return recorder


def test_the_code_of_every_start_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, code in enumerate(["one", "one", "two", "one"]):
        monkeypatch.setattr(recording, "running_code", lambda code=code: code)
        begin(tmp_path, flower_run=str(number))
    record = record_of(tmp_path)
    assert (record.code, record.flower_run, record.run) == (["one", "two"], "3", "a")


def test_what_has_stopped_a_run_is_one_sentence_of_its_record(tmp_path: Path, tiny_sample: Path) -> None:
    def handler(message: Message, context: Context) -> Message:
        return client_app(broken(message) if message.metadata.message_type == "train" else message, context)

    with pytest.raises(RunStoppedError) as caught:
        run_in_process(tmp_path, handler=handler, **settings(tiny_sample))
    record = record_of(tmp_path / "run")
    assert re.fullmatch(TIME, record.ended)
    assert record.how == "stopped"
    assert record.reason.startswith("round 1: none of 2 clients gave a usable reply; ")
    assert record.reason in str(caught.value) or "\n" in str(caught.value)
    assert "\n" not in record.reason
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto"))
    assert replace(record_of(tmp_path / "run"), ended="") == replace(record, ended="", how="finished", reason="")


def test_a_fault_of_ours_is_in_the_record_as_well(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_round(self: Checkpoints, result: Any) -> None:
        raise ZeroDivisionError("two\nlines\udcff")

    monkeypatch.setattr(Checkpoints, "after_round", after_round)
    with pytest.raises(ZeroDivisionError):
        run_in_process(tmp_path, **settings(tiny_sample))
    record = record_of(tmp_path / "run")
    assert (record.how, record.reason) == ("stopped", "ZeroDivisionError: two | lines?")


def test_a_run_that_stops_before_its_first_round_says_so(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*others: Any) -> None:
        raise RunStoppedError("no such list.")

    monkeypatch.setattr("server_app.app.clean_sets_of", refuse)
    with pytest.raises(RunStoppedError):
        run_in_process(tmp_path, **settings(tiny_sample))
    assert record_of(tmp_path / "run").reason == "no such list."


def test_an_interrupted_run_has_not_ended(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal, which Flower hands to exit handlers: what fails afterwards is nobody's fault."""
    handlers: list[Callable[[], None]] = []
    monkeypatch.setattr("server_app.stopping.add_exit_handler", handlers.append)

    def handler(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type != "train":
            return client_app(message, context)
        handlers[-1]()
        return None

    with pytest.raises(RunStoppedError, match="interrupted while clients were training"):
        run_in_process(tmp_path, handler=handler, **settings(tiny_sample))
    record = record_of(tmp_path / "run")
    assert (record.ended, record.how, record.reason) == ("", "", "")


def test_a_run_that_is_refused_leaves_the_record_as_it_is(run_dir: Path, tiny_sample: Path) -> None:
    before = (run_dir / "run.json").read_bytes()
    with pytest.raises(ConfigError, match="the clients are not those of that run"):
        run_in_process(run_dir.parent, clients=5, **settings(tiny_sample, resume=str(run_dir), num_clients=0))
    assert (run_dir / "run.json").read_bytes() == before


DAMAGES: dict[str, Callable[[str], str | bytes | None]] = {
    "missing": lambda text: None,
    "empty": lambda text: "",
    "cut off": lambda text: text[:50],
    "binary": lambda text: b"\xff\x00",
    "no object": lambda text: "[1]",
    "nested": lambda text: "[" * 100_000,
    "another key": lambda text: text.replace('"held"', '"hold"'),
    "another type": lambda text: text.replace('"clients": 4', '"clients": "4"'),
    "a text that cannot be written": lambda text: re.sub(TIME, r"\\udcff", text),
    "code that is none": lambda text: re.sub(r'"code": \[[^]]*\]', '"code": "x"', text),
    "a run that is no folder's name": lambda text: re.sub('"run": "[^"]+"', '"run": "../other"', text),
    "another run's": lambda text: re.sub('"run": "[^"]+"', '"run": "other"', text),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_is_set_aside_and_written_anew(
    run_dir: Path, finished_run: Path, tiny_sample: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, record = run_dir / "run.json", record_of(run_dir)
    damaged = DAMAGES[name](path.read_text())
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with caplog.at_level("WARNING", "flwr"):
        resume(run_dir, tiny_sample)
    again = record_of(run_dir)
    assert replace(again, started="", ended="") == replace(record, started="", ended="")
    assert again.started >= record.started
    assert outcome_of(run_dir) == outcome_of(finished_run)
    aside = run_dir / "set-aside" / "run.json.1"
    assert aside.exists() == ("run.json is damaged, or another run's; it is now" in caplog.text) == (name != "missing")


def test_something_else_in_its_place_is_set_aside(run_dir: Path, tiny_sample: Path) -> None:
    (run_dir / "run.json").unlink()
    (run_dir / "run.json" / "mine").mkdir(parents=True)
    (run_dir / ".run.json.123").write_text("half")
    resume(run_dir, tiny_sample)
    assert (run_dir / "set-aside" / "run.json.1" / "mine").is_dir()
    assert record_of(run_dir).how == "finished"
    assert not (run_dir / ".run.json.123").exists()


@pytest.mark.parametrize("run", ["first", "../first"])
def test_a_run_without_a_checkpoint_keeps_its_identity(tmp_path: Path, tiny_sample: Path, run: str) -> None:
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=cut_off_in(1), **settings(tiny_sample))
    record = replace(record_of(tmp_path / "run"), run=run, started="2020-01-01T00:00:00+00:00")
    write_record(tmp_path / "run", record)
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto", num_server_rounds=1))
    again = record_of(tmp_path / "run")
    assert ((again.run, again.started) == ("first", record.started)) == (run == "first")
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "round-00001.safetensors").run == again.run


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("a fault of ours")])
def test_a_result_is_kept_although_its_end_cannot_be_recorded(
    tmp_path: Path,
    tiny_sample: Path,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def write(run_dir: Path, record: RunRecord) -> None:
        if record.how:
            raise error
        write_record(run_dir, record)

    monkeypatch.setattr(recording, "write_record", write)
    with caplog.at_level("WARNING", "flwr"):
        run_dir = run_in_process(tmp_path, **settings(tiny_sample))
    assert outcome_of(run_dir) == outcome_of(finished_run)
    assert record_of(run_dir).how == ""
    [line] = [entry.getMessage() for entry in caplog.records if "run.json" in entry.getMessage()]
    assert line.startswith(f"{run_dir / 'run.json'} cannot be written (")
    assert line.endswith("; it does not say how the run ended.")

    caplog.clear()  # what stopped a run is never hidden by it
    handler = cut_off_by_a_sentence()
    with caplog.at_level("WARNING", "flwr"), pytest.raises(RunStoppedError, match="none of 2 clients"):
        run_in_process(tmp_path / "stopped", handler=handler, **settings(tiny_sample))
    assert "run.json cannot be written" in caplog.text


def cut_off_by_a_sentence() -> Callable[[Message, Context], Message]:
    def handler(message: Message, context: Context) -> Message:
        return client_app(broken(message) if message.metadata.message_type == "train" else message, context)

    return handler


def test_a_full_disk_at_the_start_is_one_sentence(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(run_dir: Path, record: RunRecord) -> None:
        raise OSError(errno.ENOSPC, "full", str(run_dir / ".run.json.1"))

    monkeypatch.setattr(recording, "write_record", write)
    with pytest.raises(RunStoppedError, match=r"cannot be written \(No space left on device\); free some space there"):
        run_in_process(tmp_path, **settings(tiny_sample))
    monkeypatch.undo()
    run_in_process(tmp_path, **settings(tiny_sample, resume="auto"))
    assert len(rounds_of(tmp_path / "run")) == ROUNDS


def test_a_record_that_is_read_is_the_one_that_was_written(tmp_path: Path) -> None:
    record = RunRecord(
        "a", "2", "2026-01-31T12:00:00+00:00", how="stopped", reason='"quotes", <b> \u4e2d\U0001f600', code=["x"],
        machine={"cpu": "é"},
    )  # fmt: skip
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["flower-run"] == "2"
