"""What a client keeps between visits: exact rounds, complete files, and only for its own images."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from client_app.client_state import KEPT, ClientState, Found
from config.run_config import ConfigError

KEYS = np.array([b"images/0/00/1,2.jpg", b"images/1/11/33,4.jpg"])
GIVEN = torch.tensor([3, 1])


def _state(folder: Path, digest: str = "d") -> ClientState:
    return ClientState(folder / "client", digest)


def _save(state: ClientState, server_round: int, value: float) -> None:
    state.save(server_round, {"targets": torch.full((2, 3), value)}, KEYS, GIVEN, None)


def test_what_was_saved_for_a_round_comes_back_for_that_round_alone(tmp_path: Path) -> None:
    state = _state(tmp_path)
    _save(state, 2, 0.5)
    _save(state, 5, 0.25)
    loaded = state.load(2)
    assert loaded is not None
    assert loaded.exact
    assert torch.equal(loaded.state["targets"], torch.full((2, 3), 0.5))
    assert state.load(3) is None


def test_an_empty_state_is_distinguished_from_a_lost_one(tmp_path: Path) -> None:
    state = _state(tmp_path)
    state.save(1, {}, KEYS, GIVEN, None)
    assert state.load(1) == Found({})
    assert state.load(2) is None


def test_corrected_labels_are_saved_with_their_images(tmp_path: Path) -> None:
    state = _state(tmp_path)
    state.save(4, {}, KEYS, GIVEN, torch.tensor([3, 0]))
    with safe_open(state.folder / "round-00004.safetensors", framework="numpy") as file:
        keys, corrected, given = (file.get_tensor(name) for name in ("keys", "corrected", "given"))
    assert keys.view(f"S{keys.shape[1]}")[:, 0].tolist() == KEYS.tolist()
    assert corrected.tolist() == [3, 0]
    assert given.tolist() == [3, 1]


def test_the_newest_files_are_kept(tmp_path: Path) -> None:
    state = _state(tmp_path)
    for server_round in range(1, 8):
        _save(state, server_round, server_round)
    names = sorted(path.name for path in state.folder.iterdir())
    assert names == [f"round-{server_round:05}.safetensors" for server_round in range(8 - KEPT, 8)]


def test_state_of_other_images_is_refused(tmp_path: Path) -> None:
    _save(_state(tmp_path), 1, 1.0)
    with pytest.raises(ConfigError, match=r"round-00001.safetensors was saved for other images or labels"):
        _state(tmp_path, "other").load(1)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _of_another_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"client state 2", b"client state 1"))


DAMAGES = [_truncated, _flipped, _emptied, _made_a_folder, _of_another_version]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_renamed_and_the_one_before_it_is_used(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    state = _state(tmp_path)
    for server_round in (2, 5, 7):
        _save(state, server_round, server_round)
    damage(state.folder / "round-00005.safetensors")
    for attempt in range(2):  # the second is a retry of the same visit
        with caplog.at_level("WARNING", "flwr"):
            found = state.load(5)
        assert found is not None
        assert not found.exact
        assert torch.equal(found.state["targets"], torch.full((2, 3), 2.0))
        assert caplog.text.count("continuing from the state of round 2") == attempt + 1
    assert sorted(path.name for path in state.folder.iterdir()) == [
        "round-00002.safetensors", "round-00005.safetensors.damaged", "round-00007.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_with_none_before_it_is_refused_until_it_is_deleted(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    state = _state(tmp_path)
    for server_round in (4, 5, 7):
        _save(state, server_round, server_round)
    for server_round in (4, 5):
        damage(state.folder / f"round-{server_round:05}.safetensors")
    aside = state.folder / "round-00005.safetensors.damaged"
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            state.load(5)
        assert str(caught.value).startswith(f"{aside} is this client's state after round 5 and ")
        assert str(caught.value).endswith(
            "and there is none before it: restore it as round-00005.safetensors, or delete it to let the client start"
            " afresh."
        )
    aside.rmdir() if aside.is_dir() else aside.unlink()
    assert state.load(5) is None


def test_a_state_that_cannot_be_opened_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = _state(tmp_path)
    _save(state, 1, 1.0)

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(ConfigError, match=r"round-00001.safetensors cannot be read \(Permission denied\)"):
            state.load(1)
    assert state.load(1) is not None


def test_what_killed_visits_left_is_deleted_once_their_round_is_over(tmp_path: Path) -> None:
    state = _state(tmp_path)
    _save(state, 2, 2.0)
    for name in (".round-00001.safetensors.77", ".round-00003.safetensors.77", ".mine.5"):
        (state.folder / name).write_bytes(b"half")
    _save(state, 3, 3.0)
    assert sorted(path.name for path in state.folder.glob(".*")) == [".mine.5", ".round-00003.safetensors.77"]
    _save(state, 4, 4.0)
    assert [path.name for path in state.folder.glob(".*")] == [".mine.5"]


def test_a_run_that_goes_back_keeps_what_it_saves_then(tmp_path: Path) -> None:
    """Three files of later rounds must not count as the newest three."""
    state = _state(tmp_path)
    for server_round in (10, 11, 12, 6):
        _save(state, server_round, server_round)
    assert state.load(6) is not None
    assert state.load(12) is not None


def test_other_entries_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    state = _state(tmp_path)
    _save(state, 1, 1.0)
    for name in ("round-abc.safetensors", "round-00000.safetensors"):
        (state.folder / name).mkdir()
    (state.folder / "round-1.safetensors").symlink_to("nowhere")
    for server_round in range(2, 8):
        _save(state, server_round, server_round)
    names = {path.name for path in state.folder.iterdir()}
    assert names == {
        "round-abc.safetensors", "round-00000.safetensors", "round-1.safetensors", "round-00005.safetensors",
        "round-00006.safetensors", "round-00007.safetensors",
    }  # fmt: skip


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "client").write_text("a file")
    with pytest.raises(ConfigError, match=r"client cannot be written \(.*\); 'state-dir', of the run or of the node"):
        _save(_state(tmp_path), 1, 1.0)


def test_where_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    about_visit = {"run": "abc", "state-dir": "/runs/one/state"}
    assert ClientState.of(about_visit, "", 7, "d").folder == Path("/runs/one/state/abc/client-00007")
    assert ClientState.of(about_visit, "/site/state", 7, "d").folder == Path("/site/state/abc/client-00007")
    assert ClientState.of({"run": "abc"}, "", 7, "d").folder == Path("/home/me/clothing1m-fl-state/abc/client-00007")
