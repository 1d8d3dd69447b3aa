"""What a visit costs besides convolutions, counted instead of timed: a slowdown shows up here on any machine."""

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from torch.utils._python_dispatch import TorchDispatchMode

from client_app import model_transport
from config.run_config import RunConfig
from data.images import loading as decoding
from data.images.decode import decode as real_decode
from learning import replica
from learning.local_optimizer import LocalOptimizer
from learning.network import NetworkSpec, build
from learning.training import train_locally
from messages.payload import pack, unpack
from methods import METHODS
from methods.ce import CE
from task import Compute, build_model, derived_generator
from tests.batches_of import batch_of, visit_of
from tests.fakes import run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)


class CountedOperations(TorchDispatchMode):
    """Counts PyTorch's operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket._qualified_op_name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "crop-flip-randaugment"])
@pytest.mark.parametrize(("proximal_mu", "clipping"), [(0.0, 0.0), (0.1, 0.5)])
def test_a_visit_waits_for_the_device_once_an_epoch(augmentation: str, proximal_mu: float, clipping: float) -> None:
    """Reading a number from a tensor waits until everything before it has been computed."""
    side = 37 if "crop" in augmentation else 32
    images, labels = torch.zeros(24, side, side, 3, dtype=torch.uint8), torch.zeros(24, dtype=torch.int64)
    config = RunConfig(
        image_size=32, batch_size=4, local_epochs=3, augmentation=augmentation, gradient_clipping=clipping
    )
    model = build_model("resnet18", 5, seed=1)
    with CountedOperations() as operations:
        train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "t"), proximal_mu=proximal_mu)
    assert operations.counts["aten::_local_scalar_dense"] == 3  # 18 steps
    assert operations.counts["aten::convolution_backward"] == 18 * 20


# Those that need to be told something, or train alone first, have such tests of their own; features are not there
# without values.
TOLD = {"forward", "xiao", "fednoro", "fedelc", "maskedoptim", "dualoptim", "fedclean"}
MIX = {"dividemix", "fedcorr", "feddiv"}  # their losses need what they mixed
LOSSES = [name for name in METHODS if name not in TOLD]


@pytest.mark.parametrize("name", LOSSES)
def test_no_method_makes_a_step_wait_for_the_device(name: str) -> None:
    images, labels = torch.zeros(24, 16, 16, 3, dtype=torch.uint8), torch.arange(24) % 5
    config = RunConfig(image_size=16, batch_size=4, local_epochs=3, num_server_rounds=10)
    method = METHODS[name]()
    model = build_model("cnn", 5, seed=1, networks=method.networks)
    with CountedOperations() as operations:
        train_locally(model, images, labels, method, config, CPU, derived_generator(1, "t"), server_round=9)
    assert operations.counts["aten::_local_scalar_dense"] == 3  # 18 steps


@pytest.mark.parametrize("name", [name for name in LOSSES if not METHODS[name].features and name not in MIX])
def test_no_loss_reads_a_tensor_or_selects_rows_with_a_mask(name: str) -> None:
    """Tensors without values refuse both. A GPU would wait for a mask, which the counts on a CPU do not show."""
    method = METHODS[name]()
    visit = visit_of(torch.zeros(9, dtype=torch.int64, device="meta"), 5, server_round=9, num_rounds=10)
    method.begin(visit)
    logits = [torch.zeros(4, 5, device="meta", requires_grad=True) for _ in method.views("none")]
    rows = torch.zeros(4, dtype=torch.int64, device="meta")
    loss = method.loss(batch_of(visit.labels[rows], *[logits] * method.networks, rows=rows), visit)
    loss.backward()
    assert loss.shape == ()
    assert all(view.grad is not None for view in logits)


def test_a_step_updates_all_convolutions_in_one_operation_without_copies() -> None:
    images, labels = torch.zeros(8, 32, 32, 3, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    config = RunConfig(image_size=32, batch_size=4)
    model = build_model("resnet18", 5, seed=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "t"))
    counts = Counter(event.name for event in profile.events())
    assert counts["aten::_fused_sgd_"] == 2
    # Of the labels, which a method may replace; momentum starts from zeros, not from a copy of the first gradient.
    assert counts["aten::clone"] == 1


def test_a_process_builds_one_model_and_decodes_each_image_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sample: Path
) -> None:
    built: list[str] = []
    optimizers: list[LocalOptimizer] = []
    decoded: Counter[bytes] = Counter()
    decode, init = real_decode, LocalOptimizer.__init__

    def counted_build(spec: NetworkSpec) -> Any:
        built.append(spec.model)
        return build(spec)

    def counted_decode(data: bytes) -> Any:
        decoded[data] += 1
        return decode(data)

    def counted_init(self: LocalOptimizer, *args: Any) -> None:
        optimizers.append(self)
        init(self, *args)

    monkeypatch.setattr(replica, "build", counted_build)
    monkeypatch.setattr(decoding, "decode", counted_decode)
    monkeypatch.setattr(LocalOptimizer, "__init__", counted_init)
    keeping: list[int] = []
    monkeypatch.setattr("client_app.app.keep_freed_memory", lambda: keeping.append(1))
    replica.kept_replica.cache_clear()
    run_in_process(
        tmp_path, clients=3, data_dir=str(tiny_sample), cache_dir=str(tmp_path / "cache"),
        fraction_train=1.0, fraction_evaluate=1.0, local_epochs=2, num_server_rounds=2,
    )  # fmt: skip
    replica.kept_replica.cache_clear()
    assert built == ["cnn"]  # six visits and six evaluations
    assert len(optimizers) == 1
    assert len(keeping) == 6  # before each visit trains; the real one acts once
    # 120 training images and 40 of clean test once; clean val once for the server and again in the clients' slices.
    assert sum(decoded.values()) == 120 + 40 + 2 * 12
    assert max(decoded.values()) <= 2


def test_a_model_is_copied_once_on_the_way_in_and_twice_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("resnet18", 5, seed=1)
    size = sum(value.numpy().nbytes for value in model.state_dict().values())
    sent = ArrayRecord({name: Array(value.numpy()) for name, value in model.state_dict().items()})
    copied = []
    copyto = np.copyto

    def counted(into: np.ndarray, new: np.ndarray) -> None:
        copied.append(new.nbytes)
        copyto(into, new)

    monkeypatch.setattr(np, "copyto", counted)
    tracemalloc.start()
    try:
        model_transport.load(model, unpack(sent))
        _, peak_in = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        reply = model_transport.answer(model_transport.state_of(model), sent, "fp32")
        _, peak_out = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(copied) == size
    assert peak_in < 0.02 * size  # straight from the message into the model
    largest = max(array.numpy().nbytes for array in reply.values())
    assert peak_out - held < 1.02 * size + largest  # the reply's bytes, and one weight's in rows
    for name, array in reply.items():
        assert array.data == sent[name].data


def test_another_models_weights_are_refused() -> None:
    model = build_model("resnet18", 5, seed=1)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"'fc.bias' of the global model has shape \(4,\) instead of \(5,\)"):
        model_transport.load(model, {**arrays, "fc.bias": np.zeros(4, np.float32)})
    del arrays["conv1.weight"]
    with pytest.raises(ValueError, match=r"do not have the same weights: conv1.weight, ..."):
        model_transport.load(model, arrays)


def test_a_packed_reply_is_not_saved_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Array(value)` saves into a growing buffer and copies that, for a model that is in one piece of bytes already."""
    model = build_model("resnet18", 5, seed=1)
    sent = pack(model_transport.state_of(model), "fp32")
    saved = []
    monkeypatch.setattr(np, "save", lambda *args, **kwargs: saved.append(args))
    reply = model_transport.answer(model_transport.state_of(model), sent, "fp32")
    assert not saved
    assert [array.data for array in reply.values()] == [array.data for array in sent.values()]
