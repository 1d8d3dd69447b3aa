"""`clients.jsonl`: what each client reported of each visit, one JSON object per usable reply."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from messages import keys
from methods.scores import image_scores
from server_app.callbacks import Callback, History, RoundResult
from server_app.round_lines import CLIENTS, keep_lines

LONGEST_LIST = 100  # numbers; a method may report longer ones, which are left out
# The first is here where it differs from the images, the second has a shorter name; adaptive clipping adds noise to the
# third before anybody may see it.
ELSEWHERE = {keys.NUM_EXAMPLES, keys.VISIT_SECONDS, keys.NORM_BIT}


class ClientsFile(Callback):
    """Appends a round's lines at once; a resumed run first sets aside those of rounds that it will repeat.

    It must be called before the round's checkpoint is written: a run that is killed in between repeats that round.
    """

    writes = "clients.jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_start(self, history: History) -> None:
        keep_lines(self._path, history.last_round, CLIENTS)
        self._path.touch()

    def after_round(self, result: RoundResult) -> None:
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in lines_of(result)]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))


def lines_of(result: RoundResult) -> list[dict[str, Any]]:
    """A line per client in the order of the messages; docs/clients.md explains each key.

    Null stands for a number that is not finite.
    """
    order = [partition for partition in result.sampled_partitions if partition in result.visits]
    return [
        _line(result.server_round, one, result.visits[one], result.bytes_of_visits.get(one, (0, 0))) for one in order
    ]


def _line(server_round: int, client: int, report: Mapping[str, Any], traffic: tuple[int, int]) -> dict[str, Any]:
    images = report[keys.IMAGES]
    line = {
        "round": server_round,
        "client": client,
        "images": images,
        **({keys.NUM_EXAMPLES: report[keys.NUM_EXAMPLES]} if report[keys.NUM_EXAMPLES] != images else {}),
        "train-loss": report[keys.TRAIN_LOSS],
        "seconds": round(report.get(keys.VISIT_SECONDS, 0.0), 3),
        "train-seconds": round(report.get(keys.TRAIN_SECONDS, 0.0), 3),
        "sent-bytes": traffic[0],
        "received-bytes": traffic[1],
    }
    more = {**report, **image_scores([report])}
    line |= {name: one for name, one in more.items() if name not in line and name not in ELSEWHERE}
    return {name: _finite(value) for name, value in line.items() if _fits(value)}


def _fits(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= LONGEST_LIST and all(isinstance(one, (int, float)) for one in value)
    return isinstance(value, (int, float))


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if math.isfinite(value) else None
