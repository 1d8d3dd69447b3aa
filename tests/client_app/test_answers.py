"""What a client replies when something goes wrong."""

import sys
import weakref
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode

from client_app.app import app, errors_as_replies
from config.run_config import ConfigError, RunConfig
from messages.keys import REFUSED
from tests.fakes import instruction


def _answer_to(error: Exception) -> Message:
    @errors_as_replies
    def failing(message: Message, context: Context) -> Message:
        raise error

    return failing(instruction(), Context(1, 5, {"partition-id": 3}, RecordDict(), {}))


def test_a_refusal_is_a_single_sentence() -> None:
    reply = _answer_to(ConfigError("run config: 'batch-size' is 64, too many."))
    assert (reply.error.code, reply.error.reason) == (REFUSED, "client 3: run config: 'batch-size' is 64, too many.")


def test_any_other_error_comes_with_the_end_of_its_traceback() -> None:
    reply = _answer_to(KeyError("fc.weight"))
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    first, *tail = str(reply.error.reason).splitlines()
    assert first == "client 3: KeyError: 'fc.weight'"
    assert "raise error" in tail[-2]
    assert tail[-1] == first.removeprefix("client 3: ")


def test_the_gpus_memory_is_freed_before_an_out_of_memory_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[0]() is not None))

    @errors_as_replies
    def training(message: Message, context: Context) -> Message:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nMore of it.")

    reply = training(instruction(), Context(1, 5, {"partition-id": 3}, RecordDict(), {}))
    assert alive == [False]
    reason = str(reply.error.reason)
    assert reason.startswith(
        "client 3: the GPU has too little memory: it needed 20 MiB more; use a smaller 'batch-size'"
    )
    assert "\n" not in reason


def test_a_machine_without_the_library_of_a_network_says_so_in_the_roll_call(
    monkeypatch: pytest.MonkeyPatch, tiny_sample: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    message = instruction(MessageType.QUERY)
    config = RunConfig(model="timm:resnet18", data_dir=str(tiny_sample), image_size=32)
    message.content["config"] = ConfigRecord(dict(config.to_flat()))
    reply = app(message, Context(1, 5, {"partition-id": 3, "num-partitions": 4}, RecordDict(), {}))
    assert reply.error.code == REFUSED
    assert str(reply.error.reason).startswith("client 3: run config: 'model' begins with 'timm:'")
