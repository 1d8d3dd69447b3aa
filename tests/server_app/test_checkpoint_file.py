"""Checkpoints are read back unchanged, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from data.sealed import DamagedError
from server_app.checkpoint_file import FORMAT, Checkpoint, load_checkpoint, save_checkpoint


def checkpoint(server_round: int = 3) -> Checkpoint:
    rng = np.random.default_rng(server_round)
    return Checkpoint(
        server_round,
        {"w": rng.normal(size=(3, 4)).astype(np.float32), "b.num_batches_tracked": np.array(7), "a": np.zeros(0)},
        {"seed": 1, "learning-rate": 0.1, "method": "ce", "drop-last": True, "stem": "small", "normalization-args": ""},
        "roll",
        {"moments/w": rng.normal(size=(3, 4)), "step": np.array(server_round)},
        (2, 0.5),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "round-00003.safetensors"
    save_checkpoint(path, checkpoint())
    return path


def test_a_config_of_an_earlier_version_has_what_runs_did_then(tmp_path: Path) -> None:
    original = checkpoint()
    save_checkpoint(tmp_path / "old.safetensors", replace(original, config={"seed": 1}))
    loaded = load_checkpoint(tmp_path / "old.safetensors").config
    assert loaded == {"seed": 1, "stem": "imagenet", "normalization-args": ""}


def test_what_was_saved_comes_back_bit_for_bit(saved: Path) -> None:
    loaded, original = load_checkpoint(saved), checkpoint()
    for name in ("server_round", "config", "roll", "best"):
        assert getattr(loaded, name) == getattr(original, name)
    for read, written in ((loaded.model, original.model), (loaded.strategy, original.strategy)):
        assert list(read) == list(written)
        for name, value in written.items():
            assert read[name].dtype == value.dtype
            assert read[name].shape == value.shape
            assert read[name].tobytes() == value.tobytes()
    arrays = loaded.arrays()
    assert list(arrays) == ["w", "b.num_batches_tracked", "a"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def truncated(data: bytes) -> bytes:
    return data[:-1]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def text(data: bytes) -> bytes:
    return b"round 3, honestly"


def weight_changed(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def round_changed(data: bytes) -> bytes:
    return data.replace(b'\\"round\\": 3', b'\\"round\\": 9')


def config_changed(data: bytes) -> bytes:
    return data.replace(b'\\"learning-rate\\": 0.1', b'\\"learning-rate\\": 0.2')


def other_version(data: bytes) -> bytes:
    return data.replace(FORMAT.encode(), FORMAT[:-1].encode() + b"1")


def longer(data: bytes) -> bytes:
    return data + b"x"


def header_cut(data: bytes) -> bytes:
    return (10**6).to_bytes(8, "little") + data[8:]


DAMAGES = [
    truncated, half, empty, text, weight_changed, round_changed, config_changed, other_version, longer, header_cut,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(saved: Path, tmp_path: Path, damage: object) -> None:
    path = tmp_path / saved.name
    data = damage(saved.read_bytes())  # type: ignore[operator]
    assert data != saved.read_bytes()
    path.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3)}, tmp_path / "model", {"round": "3"})
    with pytest.raises(DamagedError, match="is not a checkpoint of this version"):
        load_checkpoint(tmp_path / "model")
    save_file({"w": np.zeros(3)}, tmp_path / "facts", {"format": FORMAT, "facts": json.dumps({"round": 1})})
    with pytest.raises(DamagedError, match="is incomplete"):
        load_checkpoint(tmp_path / "facts")
    with pytest.raises(DamagedError, match="does not exist"):
        load_checkpoint(tmp_path / "absent")


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_bit_never_goes_unnoticed(saved: Path, data: st.DataObject) -> None:
    whole = saved.read_bytes()
    spot = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[spot] ^= 1 << data.draw(st.integers(0, 7))
    path = saved.with_name("flipped")
    path.write_bytes(flipped)
    try:
        loaded = load_checkpoint(path)
    except DamagedError:
        return
    finally:
        path.unlink()
    original = checkpoint()
    assert loaded.server_round == original.server_round
    assert loaded.config == original.config
    assert all(np.array_equal(loaded.model[name], value) for name, value in original.model.items())
