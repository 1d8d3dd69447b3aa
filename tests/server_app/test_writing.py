"""Runs whose machine gets into trouble: what cannot be written, why, what to do, and that the rest is kept."""

import errno
import importlib
import logging
import os
import pkgutil
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from safetensors import SafetensorError

import server_app.callbacks
from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.errors import DataError
from server_app import writing
from server_app.callbacks import Callback, History
from server_app.callbacks.client_model_files import ClientModelFiles
from server_app.callbacks.latest_model import LatestModel
from server_app.checkpoint_file import load_checkpoint
from server_app.files import output_folder
from server_app.stopping import RunStoppedError
from tests.fakes import outcome_of, run_in_process

ROOT = Path(__file__).parents[2]


def _every_callback() -> list[type[Callback]]:
    for module in pkgutil.iter_modules(server_app.callbacks.__path__, "server_app.callbacks."):
        importlib.import_module(module.name)

    def below(kind: type[Callback]) -> Iterator[type[Callback]]:
        for one in kind.__subclasses__():
            yield from (one, *below(one))

    return [one for one in below(Callback) if one.__module__.startswith("server_app.callbacks.")]


CALLBACKS = _every_callback()
WRITERS = [one for one in CALLBACKS if one.writes]


def _error(number: int, kind: str, path: Path) -> Exception:
    if kind == "safetensors":
        return SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
    return OSError(number, os.strerror(number), *([str(path / "x")] if kind == "with a name" else []))


@pytest.mark.parametrize("kind", ["plain", "with a name", "safetensors"])
@pytest.mark.parametrize("number", sorted(writing.REMEDIES), ids=errno.errorcode.get)
@pytest.mark.parametrize("callback", WRITERS)
def test_trouble_of_the_machine_is_one_sentence(
    callback: type[Callback],
    number: int,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: Any) -> None:
        raise _error(number, kind, tmp_path)

    for hook in ("on_start", "after_round", "on_end"):
        monkeypatch.setattr(callback, hook, fails)
    guarded: Any = writing.Guarded(callback.__new__(callback), tmp_path)
    sentence = f"{tmp_path / callback.writes} cannot be written ({os.strerror(number)}); {writing.REMEDIES[number]}"
    for call in (lambda: guarded.on_start(History()), lambda: guarded.after_round(None), guarded.on_end):
        if callback.needed:
            with pytest.raises(RunStoppedError) as stopped:
                call()
            assert str(stopped.value) == f"{sentence}, then resume the run."
        else:
            call()
    assert caplog.messages == ([] if callback.needed else [f"{sentence}; the run does without it."])


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("bug"), ValueError("several\nlines \x1b[31m"), MemoryError(),
        OSError("no number"), OSError(errno.EBADF, "Bad file descriptor"),
        SafetensorError("Error while serializing: dtype"), FileNotFoundError(errno.ENOENT, "gone", "/of/ours.json"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("callback", WRITERS)
def test_bugs_stay_bugs_but_no_picture_ends_a_run(
    callback: type[Callback],
    bug: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: Any) -> None:
        raise bug

    monkeypatch.setattr(callback, "on_end", fails)
    guarded = writing.Guarded(callback.__new__(callback), tmp_path)
    if callback.needed:
        with pytest.raises(type(bug)) as raised:
            guarded.on_end()
        assert raised.value is bug
        assert caplog.messages == []
    else:  # no picture is worth a run
        guarded.on_end()
        guarded.on_end()
        [sentence] = caplog.messages
        assert sentence.startswith(f"{tmp_path / callback.writes} cannot be written ({type(bug).__name__}: ")
        assert sentence.endswith("); the run does without it.")


def test_every_callback_that_writes_says_what() -> None:
    silent = {one.__name__ for one in CALLBACKS} - {one.__name__ for one in WRITERS}
    # Tracking never fails, and ClientModelFiles removes.
    assert silent == {"ClientModelFiles", "Contributions", "FailureGate", "Progress", "Tracking"}
    assert [one.__name__ for one in CALLBACKS if not one.needed] == ["Pictures"]


def _limited(kind: int, soft: int) -> Callable[[Path], None]:
    return lambda run_dir: resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _replaced(run_dir: Path) -> None:
    shutil.rmtree(run_dir)
    run_dir.write_text("a file")


TROUBLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "files too large": (_limited(resource.RLIMIT_FSIZE, 40_000), "checkpoints cannot be written (File too large); "),
    "too many open files": (_limited(resource.RLIMIT_NOFILE, 3), "failures.jsonl cannot be written (Too many open "),
    "folder deleted": (shutil.rmtree, "clients.jsonl cannot be written (No such file or directory); put its folder"),
    "folder replaced": (_replaced, "clients.jsonl cannot be written (Not a directory); put its folder"),
}


@pytest.fixture
def limits_as_before() -> Iterator[None]:
    kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    yield
    for kind, values in before.items():
        resource.setrlimit(kind, values)


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_run_in_trouble_stops_with_one_sentence_and_resumes(
    tmp_path: Path,
    tiny_sample: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    limits_as_before: None,
    trouble: str,
) -> None:
    begin, sentence = TROUBLE[trouble]
    calls = [begin]  # once
    run_dir = tmp_path / "run"
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}
    ended: list[Callback] = []
    on_end = writing.Guarded.on_end

    def ending(guarded: Any) -> None:
        ended.append(guarded._callback)
        on_end(guarded)

    monkeypatch.setattr(writing.Guarded, "on_end", ending)

    def in_round_2(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2 and calls:
            calls.pop()(run_dir)
        return reply

    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn", "cache_gib": 0.0}
    try:
        with caplog.at_level(logging.INFO, "flwr"), pytest.raises(RunStoppedError) as stopped:
            run_in_process(tmp_path, handler=in_round_2, **settings)
    finally:
        for kind, values in before.items():
            resource.setrlimit(kind, values)
    assert str(stopped.value).startswith(f"{run_dir}/{sentence}")
    assert str(stopped.value).endswith(", then resume the run.")
    assert {type(callback) for callback in ended} == set(CALLBACKS) - {ClientModelFiles}  # fedrn's
    command = caplog.messages[caplog.messages.index("To resume:") + 1]
    assert command == f"  flwr run . --stream -c \"resume='{run_dir}'\""
    if "folder" not in trouble:
        assert load_checkpoint(run_dir / "checkpoints" / "round-00001.safetensors").server_round == 1
        assert not [path for path in run_dir.rglob(".*") if "safetensors" in path.name]  # no half-written file
        resumed = run_in_process(tmp_path, **settings, resume=str(run_dir))
        assert outcome_of(resumed) == outcome_of(run_in_process(tmp_path / "undisturbed", **settings))


IN_A_SMALL_DISK = """
    import sys
    from pathlib import Path
    from client_app.app import app as client_app
    from tests.fakes import rounds_of, run_in_process
    disk, data = map(Path, sys.argv[1:])
    fill = disk / "fill"

    def in_round_2(message, context):
        if message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2:
            with fill.open("ab", buffering=0) as file:  # another program
                try:
                    while file.write(bytes(1000)):
                        pass
                except OSError:
                    pass
        return client_app(message, context)

    settings = dict(data_dir=str(data), model="cnn", cache_gib=0.0, num_server_rounds=3)
    try:
        run_in_process(disk, handler=in_round_2, **settings)
    except Exception as error:
        print(type(error).__name__, error)
    fill.unlink()
    print([entry["round"] for entry in rounds_of(run_in_process(disk, **settings, resume=str(disk / "run")))])
"""


def test_a_full_disk_stops_a_run_which_resumes_when_there_is_space(tmp_path: Path, tiny_sample: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not permitted")
    script = [sys.executable, "-c", textwrap.dedent(IN_A_SMALL_DISK), str(disk), str(tiny_sample)]
    ended = subprocess.run(
        [*mount, f'mount -t tmpfs -o size=4m none "{disk}" && exec "$@"', "sh", *script],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    stopped, resumed = ended.stdout.splitlines()[-2:]
    name, _, sentence = stopped.partition(" ")
    assert name == "RunStoppedError", ended.stderr
    assert sentence.startswith(f"{disk}/run/")
    assert sentence.endswith(
        " cannot be written (No space left on device); free some space there, then resume the run."
    )
    assert resumed == "[1, 2, 3]"


def test_a_disk_that_is_full_after_the_last_round_costs_no_model(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn"}
    with monkeypatch.context() as patch, pytest.raises(RunStoppedError, match=r"model.safetensors cannot be written"):
        patch.setattr(LatestModel, "write", full)
        run_in_process(tmp_path, **settings)
    resumed = run_in_process(tmp_path, **settings, resume=str(tmp_path / "run"))
    assert outcome_of(resumed) == outcome_of(run_in_process(tmp_path / "undisturbed", **settings))


def test_what_fails_at_the_end_does_not_keep_others_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    class Ends(Callback):
        def __init__(self, error: Exception | None) -> None:
            self._error = error

        def on_end(self) -> None:
            ended.append(self._error)
            if self._error:
                raise self._error

    errors = [None, RunStoppedError("no space"), KeyError("bug"), None]
    with pytest.raises(RunStoppedError, match="no space"), writing.ending([Ends(error) for error in errors]):
        pass
    assert ended == errors
    assert caplog.messages == ["Ends failed at the end of the run"]
    caplog.clear()
    with pytest.raises(ValueError, match="first"), writing.ending([Ends(error) for error in errors[:2]]):
        raise ValueError("first")
    assert caplog.messages == ["At the end of the run: no space"]


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("/proc/1/runs", "/proc/1 is not writable"), ("{file}/runs", "{file} is not a folder")],
)
def test_an_output_folder_that_cannot_be_made_is_refused_first(
    tmp_path: Path, tiny_sample: Path, folder: str, sentence: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    asked: list[Message] = []

    def never(message: Message, context: Context) -> None:
        asked.append(message)

    with pytest.raises(ConfigError, match=f"'output-dir' is .*{sentence.format(file=file)}.*; it must be a folder"):
        run_in_process(Path(folder.format(file=file)), handler=never, data_dir=str(tiny_sample))
    assert asked == []


def test_without_a_home_folder_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does if there is none
    with pytest.raises(DataError, match="~/clothing1m-fl-runs cannot be found: this user has no home folder; set HOME"):
        output_folder(RunConfig())
    with pytest.raises(ConfigError, match=r"'data-dir' is '~/x'; it must be an absolute path that can exist \(or one"):
        RunConfig(data_dir="~/x")
