"""The model as it travels: nothing lost in float32, correctly rounded in half precision, updates instead of models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client_app import model_transport
from client_app.app import app as client_app
from config.run_config import ConfigError
from messages.payload import PIECE_BYTES, is_packed, lengthen, pack, shorten, unpack
from server_app.model_transport import Packing
from task import build_model
from tests.fakes import record, rounds_of, run_in_process, train_reply

FLOATS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3), elements=st.floats(width=32))
ARRAYS = st.dictionaries(
    st.text(max_size=8),
    st.one_of(FLOATS, hnp.arrays(np.int64, hnp.array_shapes(min_dims=0)), hnp.arrays(np.float64, 3)),
    max_size=5,
)


@given(ARRAYS)
def test_float32_comes_back_bit_for_bit_and_in_order(arrays: dict[str, np.ndarray]) -> None:
    back = unpack(pack(arrays, "fp32"))
    assert list(back) == list(arrays)
    for name, value in arrays.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert back[name].tobytes() == value.tobytes()


@given(hnp.arrays(np.float32, 20, elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_bfloat16_is_rounded_as_by_torch(values: np.ndarray) -> None:
    np.testing.assert_array_equal(lengthen(shorten(values, "bf16", "w")), torch.tensor(values).bfloat16().float())


@given(hnp.arrays(np.float32, 20, elements=st.floats(-65000, 65000, width=32)))
def test_float16_is_rounded_as_by_torch(values: np.ndarray) -> None:
    np.testing.assert_array_equal(lengthen(shorten(values, "fp16", "w")), torch.tensor(values).half().float())


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_nan_and_infinity_survive_and_values_too_large_are_refused(kind: str) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    np.testing.assert_array_equal(lengthen(shorten(odd, kind, "w")), odd)
    with pytest.raises(OverflowError, match=rf"'w' holds 3\.4\d*e\+38, which is too large for {kind}"):
        shorten(np.array([1.0, np.finfo(np.float32).max], np.float32), kind, "w")


def test_a_resnet_50_travels_in_few_pieces_and_half_precision_in_half_the_bytes() -> None:
    arrays = {name: value.numpy() for name, value in build_model("resnet50", 14, seed=1).state_dict().items()}
    sizes = {}
    for kind in ("fp32", "bf16", "fp16"):
        packed = pack(arrays, kind)
        sizes[kind] = sum(len(array.data) for array in packed.values())
        largest = max(value.nbytes for value in arrays.values())
        assert all(len(array.data) < max(PIECE_BYTES, largest) + 100_000 for array in packed.values())
        assert len(packed) < 30
    assert len(arrays) == 320
    assert sizes["bf16"] == sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.01)


def test_a_plain_record_is_read_too() -> None:
    plain = record({"a": np.ones((2, 3), np.float32)})
    assert not is_packed(plain)
    assert not is_packed(ArrayRecord())
    np.testing.assert_array_equal(unpack(plain)["a"], np.ones((2, 3)))


@pytest.mark.parametrize("damage", [b"", b"\0" * 20, b"\xff" * 200])
def test_a_damaged_piece_is_named(damage: bytes) -> None:
    with pytest.raises(ValueError, match="'piece-0' cannot be read"):
        unpack(ArrayRecord({"piece-0": Array(np.frombuffer(damage, np.uint8))}))


def _through(kind: str, start: dict[str, np.ndarray], trained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The server's view of a client that received `start` and now has `trained`."""
    sent = train_reply(start)
    packing = Packing(kind)
    (outgoing,) = packing.outgoing([sent])
    reply = train_reply(start)
    reply.content["arrays"] = model_transport.answer(trained, outgoing.content.array_records["arrays"], kind)
    packing.unpack(reply, sent)
    return {name: array.numpy() for name, array in reply.content.array_records["arrays"].items()}


def test_half_precision_keeps_updates_smaller_than_half_a_step_of_the_weight() -> None:
    """bfloat16 cannot hold 1 + 2^-12, since its steps at 1 are 2^-7; as an update, 2^-12 travels exactly."""
    start = {"w": np.array([1 + 2**-10, 100.0], np.float32), "n": np.array(4)}
    received = {"w": np.array([1.0, 100.0], np.float32), "n": np.array(4)}  # as the client gets it
    trained = {"w": received["w"] + np.array([2**-12, -(2**-9)], np.float32), "n": np.array(6)}
    back = _through("bf16", start, trained)
    np.testing.assert_array_equal(back["w"], start["w"] + np.array([2**-12, -(2**-9)], np.float32))
    assert int(back["n"]) == 6
    assert back["n"].dtype == np.int64


@given(FLOATS.filter(lambda value: bool(np.isfinite(value).all())))
def test_float32_arrives_bit_for_bit(trained: np.ndarray) -> None:
    start = {"w": np.ones_like(trained)}
    assert _through("fp32", start, {"w": trained})["w"].tobytes() == trained.tobytes()


def test_packing_and_half_precision_in_whole_runs(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed float32 ends at the weights of plain messages, half precision near them if steps amplify no rounding."""
    sizes: dict[str, set[int]] = {}
    pieces: dict[str, int] = {}

    def measuring(name: str) -> Any:
        def handler(message: Message, context: Context) -> Message:
            reply = client_app(message, context)
            for content in (message.content, reply.content):
                for arrays in content.array_records.values():
                    pieces[name] = len(arrays)
                    sizes.setdefault(name, set()).add(round(sum(len(one.data) for one in arrays.values()) / 1e6))
            return reply

        return handler

    def final(name: str, **overrides: Any) -> dict[str, np.ndarray]:
        settings: dict[str, Any] = {"model": "resnet18", "learning_rate": 1e-5, "momentum": 0.0, **overrides}
        settings["data_dir"] = str(tiny_sample)
        run = run_in_process(tmp_path, clients=2, handler=measuring(name), run_name=name, **settings)
        assert all(entry["failed-partitions"] == [] for entry in rounds_of(run))
        return safetensors.numpy.load_file(run / "model.safetensors")

    plain = final("plain")
    halves = {kind: final(kind, payload=kind) for kind in ("bf16", "fp16")}
    monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))  # as if the nodes were elsewhere
    packed = final("packed")
    assert sizes == {"plain": {45}, "packed": {45}, "bf16": {22}, "fp16": {22}}
    assert pieces["plain"] == len(plain) == 122
    assert pieces["packed"] == 10
    for name, value in plain.items():
        np.testing.assert_array_equal(packed[name], value, err_msg=name)
        for half in halves.values():
            np.testing.assert_allclose(half[name], value, atol=0.01 * np.abs(value).max() + 1e-5, err_msg=name)
    assert any((halves["bf16"][name] != value).any() for name, value in plain.items())


def test_a_weight_that_is_too_large_ends_the_run_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"'payload' is 'fp16', but the global model's 'w' holds 70000, which is too"):
        Packing("fp16").outgoing([train_reply({"w": np.array([7e4], np.float32)})])


def test_a_client_refuses_an_update_that_is_too_large() -> None:
    packed = pack({"w": np.zeros(1, np.float32)}, "fp16")
    with pytest.raises(ConfigError, match=r"'payload' is 'fp16', but 'w' holds 70000, which is too large"):
        model_transport.answer({"w": np.array([7e4], np.float32)}, packed, "fp16")


def test_clipping_on_clients_works_with_float32_only(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(ConfigError, match="'payload' is 'bf16', but 'privacy' is 'client-fixed'"):
        args = "noise-multiplier=1.0 clipping-norm=1.0"
        run_in_process(tmp_path, data_dir=str(tiny_sample), payload="bf16", privacy="client-fixed", privacy_args=args)
