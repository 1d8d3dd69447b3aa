"""Replies that no honest client sends, drawn at random from an honest one, whatever kind of message it answers."""

import math
import random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

CODES = (0, 1, 3, 1001, 2**31 - 1)
ODD_TEXTS = (
    "", " ", "\n", "x" * 5000, "a\nINFO: round 9/9", "\x1b[2J\x1b[31mred", "\u202eabc", "\x00", "\ud800",
    "client 0: me", "%s %d {0}", "' \"", "é" * 300,
)  # fmt: skip
ODD_NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e31, -1e31, 10**400, True, False)  # none is plausible
ODD: tuple[Any, ...] = (
    *ODD_NUMBERS, *ODD_TEXTS, None, b"", b"\xff\x00", [], [math.nan] * 14, [[1.0]], ["a"] * 14,
    ["\n"] * 3, {}, (1, 2), object,
)  # fmt: skip
HEADERS = (
    "", "-" * 9000, "(" * 3000, "{'descr': '', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "__import__('os')",
)  # fmt: skip


def malformed(reply: Message, rng: random.Random) -> Message:
    """`reply` with at least one thing wrong; the honest one is not changed."""
    if rng.random() < 0.15:
        reason: Any = rng.choice([*ODD_TEXTS, None, 7, b"x"])
        return Message(Error(rng.choice(CODES), reason), reply_to=_question(reply))
    content = RecordDict({name: _copy(record) for name, record in reply.content.items()})
    for _ in range(rng.choice([1, 1, 1, 3])):
        _break(content, rng)
    return Message(content, reply_to=_question(reply))


def _break(content: RecordDict, rng: random.Random) -> None:
    name = rng.choice(sorted(content)) if content else "metrics"
    record = content.get(name)
    action = rng.random()
    if record is None or action < 0.06:
        content.pop(name, None)
    elif action < 0.12:
        content[name] = rng.choice([ArrayRecord, MetricRecord, ConfigRecord])({}) if rng.random() < 0.5 else RENAMED
    elif action < 0.16:
        content[rng.choice(ODD_TEXTS[3:])] = MetricRecord({"a": 1.0})
    elif isinstance(record, ArrayRecord):
        _break_arrays(record, rng)
    else:
        _break_values(record, rng)


RENAMED = MetricRecord({"num-examples": 1})


def _break_values(record: Any, rng: random.Random) -> None:
    """In place, past the checks that Flower's records make of what is put into them: other senders make none."""
    data: dict[str, Any] = record.__dict__["_data"]
    key = rng.choice(sorted(data)) if data else "a"
    action = rng.random()
    if action < 0.15:
        data.pop(key, None)
    elif action < 0.3:
        data[rng.choice(ODD_TEXTS)] = rng.choice(ODD)
    elif action < 0.5 and isinstance(data.get(key), list):
        values = list(data[key])
        data[key] = rng.choice([values[:-1], [*values, 1.0], values * 100, [rng.choice(ODD), *values[1:]]])
    else:
        data[key] = rng.choice([odd for odd in ODD if type(odd) is not type(data.get(key)) or odd != data.get(key)])


def _break_arrays(record: ArrayRecord, rng: random.Random) -> None:
    name = rng.choice(sorted(record)) if record else "a"
    action = rng.random()
    if action < 0.1 or name not in record:
        record.pop(name, None)
        return
    if action < 0.2:
        record[rng.choice(ODD_TEXTS)] = Array(np.ones(2, np.float32))
        return
    array = record[name]
    data = bytes(array.data)
    wrong = Array(array.dtype, array.shape, array.stype, data)
    record[name] = wrong
    if action < 0.4:
        value = np.ones(array.shape, array.dtype if array.dtype in ("float32", "int64") else np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            record[name] = Array(
                np.full_like(value, rng.choice([np.nan, np.inf, 3e38, -3e38]) if value.dtype.kind == "f" else -5)
            )
    elif action < 0.55:
        wrong.data = data[: rng.randrange(len(data))]
    elif action < 0.7:
        text = rng.choice(HEADERS).encode() + b"\n"
        wrong.data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data[-8:]
    elif action < 0.8:
        wrong.shape = rng.choice([(7,), (-1,), (2**62, 2**62)])
    elif action < 0.9:
        wrong.dtype = rng.choice(["float99", "", "object", "int8"])
    else:
        wrong.stype = rng.choice(["pickle", "", "\n"])


def _copy(record: Any) -> Any:
    copied = type(record)({})
    copied.__dict__["_data"] = dict(record.items())
    return copied


def _question(reply: Message) -> Message:
    """A message that `reply` answers."""
    data = reply.metadata
    question = Message(RecordDict(), data.src_node_id, data.message_type)
    question.metadata.__dict__["_message_id"] = data.reply_to_message_id
    return question
