"""Messages, replies and whole runs without Ray."""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from PIL import Image

from benchmarks.tools import in_process
from benchmarks.tools.in_process import Handler, InProcessGrid, identify, partitions
from client_app.app import app as client_app
from messages import keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Handler", "InProcessGrid", "partitions", "run_in_process"]


def run_in_process(
    out: Path,
    clients: int = 4,
    handler: Handler | None = None,
    nodes: list[dict[str, Any]] | None = None,
    *,
    pictures: bool = False,
    **overrides: Any,
) -> Path:
    """A whole run of the real ServerApp and ClientApp; returns its folder.

    It trains the small CNN unless another model is named, in a tenth of a ResNet-18's time. Figures are made, but for
    each picture a file with one pixel is written unless `pictures`: to render two takes longer than the whole run.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr("data.plots.save", _one_pixel)
        return in_process.run_in_process(out, clients, handler, nodes, **{"model": "cnn", **overrides})


def _one_pixel(figure: "Figure", path: Path) -> None:
    """Write what may be opened and replaced like a picture, and fails where one would."""
    Image.new("RGB", (1, 1)).save(path)


def instruction(message_type: str = MessageType.TRAIN, node_id: int = 1) -> Message:
    """A message as the SuperLink would deliver it."""
    identify()
    message = Message(RecordDict({keys.CONFIG: ConfigRecord()}), node_id, message_type)
    message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
    return message


def record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def train_reply(arrays: Mapping[str, Any], num_examples: int = 1, loss: float = 1.0) -> Message:
    """A client's reply to a train message."""
    metrics = MetricRecord({keys.NUM_EXAMPLES: num_examples, keys.TRAIN_LOSS: loss})
    return Message(RecordDict({keys.ARRAYS: record(arrays), keys.METRICS: metrics}), reply_to=instruction())


def one_round(
    strategy: Strategy, arrays: Mapping[str, Any], replies: Iterable[Message], server_round: int = 1
) -> dict[str, np.ndarray]:
    """The new global arrays after `arrays` were sent and `replies` came back."""
    grid = InProcessGrid(client_app, partitions(2))
    strategy.configure_train(server_round, record(arrays), ConfigRecord(), grid)
    new, metrics = strategy.aggregate_train(server_round, iter(replies))
    assert new is not None
    assert metrics is not None
    return {name: array.numpy() for name, array in new.items()}


class CutOffError(BaseException):
    """Stands for a kill: nothing in the app catches it."""


def cut_off_in(train_message: int, *, after: bool = False) -> Callable[[Message, Context], Message]:
    """A client that is killed, and the whole run with it, at the nth training message.

    If `after`, it has trained by then and saved its state, and only its reply is lost.
    """
    left = [train_message]

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            left[0] -= 1
            if left[0] == 0:
                if after:
                    client_app(message, context)
                raise CutOffError
        return client_app(message, context)

    return handler


# Keys of metrics.jsonl that may differ between two equal runs.
TIMES = (
    "seconds", "slowest-client-seconds", "slowest-training-seconds", "evaluation-seconds", "images-per-second",
    "flower-run", "exchange-seconds", "overlap-seconds", "server-training-seconds",
)  # fmt: skip

TRAFFIC = (
    "sent-bytes",
    "received-bytes",
    "query-bytes",
    "eval-bytes",
)  # real nodes get packed models, and retries count


def outcome_of(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What must not depend on kills, actors or the runtime: numbers but times and traffic, and hashes of weights.

    Where two outcomes differ, a test that fails shows which numbers and which tensors do.
    """
    left_out = {*TIMES, *TRAFFIC}
    rounds = [{key: value for key, value in entry.items() if key not in left_out} for entry in rounds_of(run_dir)]
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    return rounds, {name: hashlib.sha256(value.tobytes()).hexdigest()[:16] for name, value in weights.items()}


def rounds_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
