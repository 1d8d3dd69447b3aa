"""Files of clients' last models, which the server keeps for methods that send some of them to others."""

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.combinations import check_combination
from config.run_config import ConfigError, RunConfig
from data.sealed import write_sealed
from data.whole_files import round_path
from messages.arrays import as_numpy
from methods import build_method
from runs.removing import LARGE
from server_app import client_models
from server_app.callbacks import History
from server_app.callbacks.client_model_files import ClientModelFiles
from server_app.checkpoint_file import save_checkpoint
from server_app.client_models import ClientModels, Outgoing, version_of
from server_app.files import CLIENT_MODELS, tidy
from server_app.stopping import RunStoppedError
from server_app.strategy import make_strategy
from tests.fakes import record
from tests.server_app.test_checkpoint_file import checkpoint

MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b.num_batches_tracked": np.array(7)}


def test_a_model_that_several_clients_get_is_read_once_and_let_go_of(tmp_path: Path) -> None:
    models = ClientModels(tmp_path, "run")
    models.keep(3, 2, record(MODEL))
    outgoing = Outgoing(models, {3: 2}, "ce")
    one = outgoing.of(3)
    models.path(3, 2).unlink()
    assert outgoing.of(3) is one
    outgoing.let_go()
    assert len(one) == 0


# Files.


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    models = ClientModels(tmp_path, "run")
    models.keep(7, 12, record(MODEL))
    assert [path.name for path in (tmp_path / CLIENT_MODELS).iterdir()] == ["client-00007-round-00012.safetensors"]
    loaded = {name: as_numpy(array) for name, array in models.load(7, 12).items()}
    assert list(loaded) == list(MODEL)
    for name, value in MODEL.items():
        assert (loaded[name].dtype, loaded[name].shape) == (value.dtype, value.shape)
        assert loaded[name].tobytes() == value.tobytes()


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_names_say_whose_and_when(client: int, server_round: int) -> None:
    assert version_of(ClientModels(Path(), "run").path(client, server_round).name) == (client, server_round)


@pytest.mark.parametrize(
    "name",
    ["client-1-round-00001.safetensors", "client-00001-round-00000.safetensors", "round-00001.safetensors", "notes",
     ".client-00001-round-00001.safetensors.7", "client-000001-round-00001.safetensors"],
)  # fmt: skip
def test_other_names_are_nobodys(name: str) -> None:
    assert version_of(name) is None


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 16
    path.write_bytes(bytes(data))


def _of_another(path: Path) -> None:
    write_sealed(path, client_models.FORMAT, {"run": "another", "client": 1, "round": 2}, MODEL)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (_remove, "does not exist"),
    "short": (_truncate, r"cannot be read \(.*\)"),
    "changed": (_flip, "has changed since it was written: its checksum does not match"),
    "another's": (_of_another, "is that of another client, round or run"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_model_that_is_gone_or_damaged_is_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, why = DAMAGES[case]
    models = ClientModels(tmp_path, "run")
    for client in range(3):
        models.keep(client, 2, record(MODEL))
    models.check({0: 2, 1: 2, 2: 2})
    spoil(models.path(1, 2))
    models.check({0: 2, 2: 2})
    sentence = (
        rf"{re.escape(str(models.path(1, 2)))} {why}; it must be the model of client 1 after round 2: restore it, then"
        r" resume the run\."
    )
    with pytest.raises(RunStoppedError, match=rf"^{sentence}$"):
        models.load(1, 2)
    start = "run config: 'resume' continues a run that keeps its clients' models, but "
    with pytest.raises(ConfigError, match=rf"^{start}{sentence}$"):
        models.check({0: 2, 1: 2, 2: 2})


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(client_models, "write_sealed", full)
    with pytest.raises(
        RunStoppedError, match=r"client-models/client-00001-.* \(No space .*\); free some space there, "
    ):
        ClientModels(tmp_path, "run").keep(1, 2, record(MODEL))


def _result(server_round: int, visits: dict[int, int], best: int) -> Any:
    return SimpleNamespace(server_round=server_round, state=SimpleNamespace(visits=visits), pick=(best, 0.5))


def test_a_model_stays_as_long_as_some_checkpoint_refers_to_it(tmp_path: Path) -> None:
    """Of the last two rounds, and of the best; models of later rounds may come back. Also after a resume."""
    checkpoints, models = tmp_path / "checkpoints", ClientModels(tmp_path, "run")
    checkpoints.mkdir()
    history = {1: {0: 1, 1: 1}, 2: {0: 2, 1: 1}, 3: {0: 3, 1: 1}, 4: {0: 4, 1: 4}, 5: {0: 5, 1: 4}, 6: {0: 6, 1: 6}}
    expected = {
        1: {(0, 1), (1, 1)},
        2: {(0, 1), (1, 1), (0, 2)},
        3: {(0, 2), (1, 1), (0, 3)},  # round 2 is the best from now on
        4: {(0, 2), (1, 1), (0, 3), (0, 4), (1, 4)},
        5: {(0, 2), (1, 1), (0, 4), (1, 4), (0, 5)},
        6: {(0, 5), (1, 4), (0, 6), (1, 6)},  # now it is round 6
    }
    best = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 6}
    models.keep(0, 99, record(MODEL))  # of a round that is yet to come
    callback = ClientModelFiles(models, checkpoints)
    callback.on_start(History())
    for server_round, visits in history.items():
        for client in (one for one, number in visits.items() if number == server_round):
            models.keep(client, server_round, record(MODEL))
        path = round_path(checkpoints, server_round)
        save_checkpoint(path, replace(checkpoint(server_round), visits=visits))
        if best[server_round] == server_round:
            (checkpoints / "best.safetensors").write_bytes(path.read_bytes())
        if server_round > 2:
            round_path(checkpoints, server_round - 2).unlink()
        if server_round % 2:  # a resumed run finds all that in the folder
            callback = ClientModelFiles(models, checkpoints)
            callback.on_start(History(server_round - 1))
        callback.after_round(_result(server_round, visits, best[server_round]))
        found = {version_of(path.name) for path in (tmp_path / CLIENT_MODELS).iterdir()}
        assert found == expected[server_round] | {(0, 99)}


def test_what_a_killed_process_was_writing_is_tidied_up_and_a_file_in_the_folders_place_set_aside(
    tmp_path: Path,
) -> None:
    folder = tmp_path / CLIENT_MODELS
    folder.mkdir()
    (folder / ".client-00001-round-00002.safetensors.4711").write_bytes(b"half")
    (folder / "client-00001-round-00001.safetensors").write_bytes(b"whole")
    tidy(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["client-00001-round-00001.safetensors"]
    other = tmp_path / "other"
    other.mkdir()
    (other / CLIENT_MODELS).write_text("in the way")
    tidy(other)
    assert not (other / CLIENT_MODELS).exists()
    assert [path.name for path in (other / "set-aside").iterdir()] == [f"{CLIENT_MODELS}.1"]


def test_they_go_with_a_runs_other_large_files() -> None:
    assert CLIENT_MODELS in LARGE


def test_privacy_is_refused() -> None:
    for privacy, strategy in (("server-fixed", "fedavg"), ("client-fixed", "fedadam")):
        args = "noise-multiplier=1 clipping-norm=1"
        config = RunConfig(method="fedrn", privacy=privacy, privacy_args=args, strategy=strategy)
        with pytest.raises(
            ConfigError, match="for which the server sends clients' models without noise to other clien"
        ):
            check_combination(config, build_method(config), make_strategy(config))
