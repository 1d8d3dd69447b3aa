"""What a client keeps between visits: exact rounds, complete files, and only for its own images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from client_app.client_state import KEPT, ClientState
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
    assert torch.equal(loaded["targets"], torch.full((2, 3), 0.5))
    assert state.load(3) is None


def test_an_empty_state_is_distinguished_from_a_lost_one(tmp_path: Path) -> None:
    state = _state(tmp_path)
    state.save(1, {}, KEYS, GIVEN, None)
    assert state.load(1) == {}
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


@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_file_counts_as_lost(tmp_path: Path, damage: object) -> None:
    state = _state(tmp_path)
    _save(state, 1, 1.0)
    path = state.folder / "round-00001.safetensors"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert state.load(1) is None


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
