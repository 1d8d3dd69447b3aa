"""Whatever happens to the files of a run: resuming goes on, falls back, or says in a sentence why not; nothing is lost.

DAMAGES=200 pytest tests/server_app/test_damaged_folders.py   200 random damages to every kind of file, not just a few
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_app.app import app as client_app
from client_app.client_state import FORMAT, ClientState
from config.resolve import resolve
from config.run_config import ConfigError, RunConfig
from data.errors import DataError
from data.sealed import DamagedError, read_sealed
from data.whole_files import round_files, round_of, round_path
from server_app.callbacks import History
from server_app.callbacks.checkpoints import Checkpoints
from server_app.callbacks.clients_file import ClientsFile
from server_app.callbacks.failures_file import FailuresFile
from server_app.callbacks.metrics_file import MetricsFile
from server_app.callbacks.noisy_clients_file import NoisyClientsFile
from server_app.callbacks.pictures import Pictures
from server_app.callbacks.progress import Progress
from server_app.checkpoint_file import load_checkpoint
from server_app.files import CHECKPOINTS
from server_app.recording import Recorder
from server_app.resume import Start, begin, find_start, open_named, saved_config
from server_app.resume_record import record_resume, write_config
from server_app.run_lock import RunLock
from server_app.run_record import read_record
from server_app.stopping import RunStoppedError
from tests.fakes import run_in_process
from tests.server_app.damage import damage, hashes, kinds, valid_lines
from tests.server_app.test_resume import broken

DAMAGES = int(os.environ.get("DAMAGES", "6"))
WHOLE_RUNS = DAMAGES + 2  # of all kinds together
ROUNDS = 4
SMALL: dict[str, Any] = {"model": "cnn", "image_size": 16, "method": "elr", "fraction_train": 1.0, "clients": 2}
Check = Callable[[Path, str], object]


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    """Thousands of resumes have a lot to say."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def finished(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a failure, a resume, something set aside, and what a kill in mid-write left."""
    out = tmp_path_factory.mktemp("finished")
    failed: list[Message] = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and not failed:
            failed.append(message)
            message = broken(message)
        return client_app(message, context)

    common = {**SMALL, "data_dir": str(tiny_sample), "tracking": "tensorboard"}
    run_dir = run_in_process(out, handler=handler, num_server_rounds=ROUNDS - 1, **common)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write("{")
    run_in_process(out, num_server_rounds=ROUNDS, resume="auto", **common)
    for leftover in (".model.safetensors.77", "checkpoints/.round-00005.safetensors.77", "checkpoints/.best"):
        (run_dir / leftover).write_bytes(b"half a file")
    return run_dir


def test_the_folder_has_every_kind_of_file(finished: Path) -> None:
    names = {path.name for path in finished.rglob("*")}
    assert names >= {
        ".lock", "config.toml", "run.json", "metrics.jsonl", "clients.jsonl", "failures.jsonl", "resumes.jsonl",
        "metrics.jsonl.1", "model.safetensors", "best.safetensors", "round-00004.safetensors", "client-00001",
        "accuracy.png", "tensorboard",
    }  # fmt: skip
    assert len(kinds(finished)) < len(list(finished.rglob("*")))


def damaged(finished: Path, names: Sequence[str], check: Check, examples: int, kept: Sequence[str]) -> None:
    """Call `check` with copies of the folder in which one of the names, drawn at random, is damaged at random.

    Afterwards, each valid line must still be somewhere, and each file of the folders in `kept`.
    """

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow], derandomize=DAMAGES < 100)
    @given(st.data())
    def with_damage(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_dir = shutil.copytree(finished, Path(folder).resolve() / "run")
            name = data.draw(st.sampled_from(names))
            for _ in range(data.draw(st.integers(1, 2))):
                if (run_dir / name).exists():
                    damage(run_dir / name, data.draw)
            lines, files = valid_lines(run_dir), set().union(*(hashes(run_dir / folder) for folder in kept))
            how = data.draw(st.sampled_from(["auto", "auto by name", "path", "checkpoint"]))
            _in_a_sentence(lambda: check(run_dir, how))
            assert lines <= valid_lines(run_dir)
            assert files <= hashes(run_dir)

    with_damage()


def _in_a_sentence(act: Callable[[], object]) -> None:
    """Whatever stops this must say so in one sentence."""
    try:
        act()
    except (ConfigError, DataError, RunStoppedError) as error:
        said = str(error)
    else:
        return
    assert "\n" not in said
    assert said.endswith(".")


def test_resuming_reads_any_folder_without_losing_what_is_valid(finished: Path, tiny_sample: Path) -> None:
    digests = {
        path.parent.name: read_sealed(path, FORMAT)[0]["digest"]
        for path in finished.glob("state/*/*/round-*.safetensors")
    }

    def check(run_dir: Path, how: str) -> None:
        newest = ROUNDS - 1 if how == "checkpoint" else _newest_valid(run_dir)
        start = _resume_without_training(run_dir, how, tiny_sample)
        if start.run_dir == run_dir:
            assert start.next_round - 1 == newest
            rounds = [json.loads(line)["round"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
            assert rounds == sorted(set(rounds))
            assert [line["round"] for line in start.metrics] == rounds
            assert not any(path.name.endswith(".77") and path.is_file() for path in run_dir.rglob(".*"))
        _read_states(run_dir, digests)

    for name in kinds(finished):
        damaged(finished, [name], check, DAMAGES, [CHECKPOINTS, "state"])


def _newest_valid(run_dir: Path) -> int:
    """The best model's checkpoint is the last resort: who deletes the newest round wants to go back."""
    for path in (*reversed(round_files(run_dir / CHECKPOINTS).values()), run_dir / CHECKPOINTS / "best.safetensors"):
        with contextlib.suppress(DamagedError):
            found = load_checkpoint(path).server_round
            if round_of(path.name) in (None, found):
                return found
    return 0


def _resume_without_training(run_dir: Path, how: str, sample: Path) -> Start:
    """All that a resumed run does before its first round, but for the roll call."""
    user = _settings(run_dir, how, sample) if how.startswith("auto") else {"resume": _path(run_dir, how)}
    with RunLock() as lock:
        named = open_named(str(user["resume"]), lock)
        config = resolve({**saved_config(named), **user}, defaults=RunConfig().to_flat())
        start = find_start(config, lock, named)
        resumed, start = start is not None, begin(config, start, lock)
        write_config(start.run_dir, config, "1")
        recorder = Recorder()
        recorder.begin(start, "1", {}, [])
        if resumed:
            record_resume(start, config, "1")
        best = start.checkpoint.best if start.checkpoint else None
        for callback in (
            FailuresFile(start.run_dir / "failures.jsonl"),
            ClientsFile(start.run_dir / "clients.jsonl"),
            NoisyClientsFile(start.run_dir / "noisy-clients.json", []),
            MetricsFile(start.run_dir / "metrics.jsonl"),
            Checkpoints(start.run_dir / CHECKPOINTS, config.to_flat(), "roll", start.run),
            Progress(ROUNDS),
            Pictures(start.run_dir, (), ""),
        ):
            callback.on_start(History(start.next_round - 1, start.metrics, best))
        recorder.end("finished", "")
        record = read_record(start.run_dir)
        assert record is not None
        assert (record.run, record.how) == (start.run, "finished")
        return start


def _path(run_dir: Path, how: str) -> str:
    return str(round_path(run_dir / CHECKPOINTS, ROUNDS - 1) if how == "checkpoint" else run_dir)


def _settings(run_dir: Path, how: str, sample: Path) -> dict[str, Any]:
    changes = {"output-dir": str(run_dir.parent), "resume": "auto", "run-name": "run" if "name" in how else ""}
    saved = {**RunConfig().to_flat(), "data-dir": str(sample), "num-server-rounds": ROUNDS + 1}
    small = {key.replace("_", "-"): value for key, value in SMALL.items() if key != "clients"}
    return {**saved, **small, "batch-size": 8, "precision": "fp32", "tracking": "tensorboard", **changes}


def _read_states(run_dir: Path, digests: Mapping[str, str]) -> None:
    for folder in (run_dir / "state").glob("*/client-*"):
        for server_round in round_files(folder):
            state = ClientState(folder, digests[folder.name])
            _in_a_sentence(partial(state.load, server_round))


def test_whole_runs_resume_in_damaged_folders(finished: Path, tiny_sample: Path) -> None:
    def check(run_dir: Path, how: str) -> None:
        user = {"resume": "auto" if how.startswith("auto") else _path(run_dir, how)}
        common = {**SMALL, "data_dir": str(tiny_sample), "num_server_rounds": ROUNDS, **user}
        run_in_process(run_dir.parent, **common, run_name="" if how == "auto" else "run")

    damaged(
        finished, kinds(finished), check, WHOLE_RUNS, [CHECKPOINTS]
    )  # visits that are repeated save their states anew
