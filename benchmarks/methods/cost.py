"""What a visit costs with a method, relative to plain cross-entropy, however busy the machine is.

The real ServerApp and ClientApp run in this process, one client a round. Each train message is answered twice, in
alternating order: as it is, and with the method `ce` on the same client's images. Processor time on one thread is
compared, so that other work on the machine changes little. The first pair is left out, since it also decodes images and
allocates memory. Passes outside of training, such as the one that looks for noisy clients once in a run, do not count.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from benchmarks.tools.in_process import run_in_process
from client_app.app import app as client_app
from config.run_config import Value
from task import build_model

CLASSES = 14
ROUNDS = 4


class Pairs:
    """A handler of messages that times train messages and repeats each with `ce`; `ratios` has the quotients."""

    def __init__(self, model: str) -> None:
        self._arrays = ArrayRecord(build_model(model, CLASSES, seed=1).state_dict())
        self.ratios: list[float] = []

    def __call__(self, message: Message, context: Context) -> Message | None:
        if message.metadata.message_type != MessageType.TRAIN:
            return client_app(message, context)
        plain = self._with_ce(message)
        aside = Context(context.run_id, context.node_id, dict(context.node_config), RecordDict(), {})
        if len(self.ratios) % 2:
            base, _ = _timed(plain, aside)
            own, reply = _timed(message, context)
        else:
            own, reply = _timed(message, context)
            base, _ = _timed(plain, aside)
        self.ratios.append(own / base)
        return reply

    def _with_ce(self, message: Message) -> Message:
        config = {**message.content.config_records["config"], "method": "ce", "method-args": ""}
        content = RecordDict({"arrays": self._arrays, "config": ConfigRecord(config)})
        plain = Message(content, message.metadata.dst_node_id, MessageType.TRAIN)
        plain.metadata.__dict__["_message_id"] = "plain"
        return plain


def ratios(config: Mapping[str, Value], clients: int, rounds: int = ROUNDS) -> list[float]:
    """Processor time of visits over that of the same visits with `ce`, one number a round but the first.

    Raises:
        RuntimeError: A visit with `ce` failed; those of the method itself end the run with their own sentence.
    """
    torch.set_num_threads(1)
    pairs = Pairs(str(config["model"]))
    overrides: dict[str, Any] = {**config, "num-server-rounds": rounds, "fraction-train": 1 / clients}
    with tempfile.TemporaryDirectory() as folder:
        run_in_process(Path(folder), clients, handler=pairs, **overrides)
    return pairs.ratios[1:]


def median_ratio(found: list[float]) -> float:
    return statistics.median(found)


def _timed(message: Message, context: Context) -> tuple[float, Message]:
    start = time.process_time()
    reply = client_app(message, context)
    seconds = time.process_time() - start
    if reply.has_error() and message.metadata.message_id == "plain":
        raise RuntimeError(reply.error.reason)
    return seconds, reply
