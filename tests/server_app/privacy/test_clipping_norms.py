"""Clipping updates, and the norm that adapts to them."""

import math

import numpy as np
import pytest
import torch

from client_app.model_transport import clipped
from messages.clipping import clip_update
from server_app.privacy.clipping_norms import AdaptiveClipping
from server_app.strategies.batchnorm import is_parameter
from tests.batchnorm_models import moved, network, state_of


def test_clipping_by_hand() -> None:
    """Norm 5 over both arrays; the buffers moved a lot, but do not count and stay as they are."""
    sent = {"a": np.array([1.0, 1.0], np.float32), "b": np.array([[2.0]], np.float32)}
    model = {
        "a": np.array([4.0, 1.0], np.float32),
        "bn.running_mean": np.array([1e6], np.float32),
        "b": np.array([[6.0]], np.float32),
        "bn.num_batches_tracked": np.asarray(10**6),
    }
    same = dict(model)
    assert clip_update(same, sent, 5.0)
    assert all(same[name] is value for name, value in model.items())
    short = dict(model)
    assert not clip_update(short, sent, 2.5)
    assert short["a"].tolist() == [2.5, 1.0]
    assert short["b"].tolist() == [[4.0]]
    assert short["a"].dtype == np.float32
    assert all(short[name] is model[name] for name in ("bn.running_mean", "bn.num_batches_tracked"))


def test_clients_and_server_clip_bit_for_bit_alike_whatever_the_memory_layout() -> None:
    arrays = state_of(network())
    model = network().to(memory_format=torch.channels_last)
    after = moved(arrays, np.random.default_rng(1))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in after.items()})
    sent, within = clipped(model, arrays, 0.1)
    assert not within
    on_server = {name: value.copy() for name, value in after.items()}
    parameters = {name: value for name, value in arrays.items() if is_parameter(name, value.dtype)}
    assert not clip_update(on_server, parameters, 0.1)
    for name, value in on_server.items():
        np.testing.assert_array_equal(sent[name], value, err_msg=name)
    length = math.sqrt(sum(float(((on_server[name] - value) ** 2).sum()) for name, value in parameters.items()))
    assert length == pytest.approx(0.1, rel=1e-5)


def test_the_norm_converges_to_its_target_quantile() -> None:
    rng = np.random.default_rng(4)
    clipping = AdaptiveClipping(noise_multiplier=1.0, target_clipped_quantile=0.8)
    for _ in range(300):
        norms = rng.lognormal(mean=1.0, sigma=0.5, size=100)
        clipping.adapt(int((norms <= clipping.clipping_norm).sum()), 100, 100, rng)
    assert clipping.clipping_norm == pytest.approx(math.exp(1.0 + 0.5 * 0.8416), rel=0.15)
