"""Whole runs under differential privacy: who clips, what is logged, and a resume, bit for bit."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import ArrayRecord, Context, Message

from client_app.app import app as client_app
from server_app.strategies.batchnorm import is_parameter
from tests.fakes import rounds_of, run_in_process


def _run(out: Path, sample: Path, name: str, **values: Any) -> tuple[Path, dict[str, bytes]]:
    settings = {
        "data_dir": str(sample), "train_split": "clean", "image_size": 16, "batch_size": 5, "clients": 2,
        "fraction_train": 1.0, "run_name": name, "model": "cnn", "learning_rate": 0.1, **values,
    }  # fmt: skip
    run_dir = run_in_process(out, **settings)
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    return run_dir, {key: value.tobytes() for key, value in weights.items()}


ADAPTIVE: dict[str, Any] = {
    "privacy_args": "noise-multiplier=0.1 clipped-count-stddev=1 initial-clipping-norm=0.2",
    "num_server_rounds": 2,
}


@pytest.fixture(scope="module")
def adaptive(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    return _run(tmp_path_factory.mktemp("adaptive"), tiny_sample, "run", privacy="server-adaptive", **ADAPTIVE)


def test_norm_and_noise_are_in_the_metrics(adaptive: tuple[Path, dict[str, bytes]]) -> None:
    first, second = rounds_of(adaptive[0])
    assert first["clipping-norm"] == 0.2
    assert second["clipping-norm"] > 0.2
    assert first["noise-stddev"] == pytest.approx((0.1**-2 - 2**-2) ** -0.5 * 0.2 / 2)
    assert "norm-bit" not in first


def test_a_resumed_run_ends_the_same_bit_for_bit(
    tmp_path: Path, tiny_sample: Path, adaptive: tuple[Path, dict[str, bytes]]
) -> None:
    _run(tmp_path, tiny_sample, "halved", privacy="server-adaptive", **{**ADAPTIVE, "num_server_rounds": 1})
    run_dir, weights = _run(tmp_path, tiny_sample, "halved", privacy="server-adaptive", resume="auto", **ADAPTIVE)
    assert weights == adaptive[1]
    assert rounds_of(run_dir)[1]["clipping-norm"] == rounds_of(adaptive[0])[1]["clipping-norm"]


def test_clients_clip_before_they_send_and_exactly_like_the_server(
    tmp_path: Path, tiny_sample: Path, adaptive: tuple[Path, dict[str, bytes]]
) -> None:
    seen: list[float] = []

    def handler(message: Message, context: Context) -> Message:
        before = {name: array.numpy() for name, array in message.content.array_records.get("arrays", {}).items()}
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            after: ArrayRecord = reply.content.array_records["arrays"]
            updates = (after[name].numpy() - old for name, old in before.items() if is_parameter(name, old.dtype))
            norm = math.sqrt(sum(float(np.square(update).sum(dtype=np.float64)) for update in updates))
            seen.append(norm / float(message.content.config_records["config"]["clipping-norm"]))  # type: ignore[arg-type]
        return reply

    _, weights = _run(tmp_path, tiny_sample, "run", privacy="client-adaptive", handler=handler, **ADAPTIVE)
    assert weights == adaptive[1]
    assert seen[:2] == pytest.approx([1.0, 1.0], rel=1e-4)
    assert max(seen) < 1.0001


def test_fixed_clipping_is_the_same_on_clients_and_server(tmp_path: Path, tiny_sample: Path) -> None:
    values: dict[str, Any] = {"privacy_args": "noise-multiplier=0.1 clipping-norm=0.3", "num_server_rounds": 1}
    _, one = _run(tmp_path, tiny_sample, "server", privacy="server-fixed", **values)
    _, two = _run(tmp_path, tiny_sample, "client", privacy="client-fixed", **values)
    assert one == two
