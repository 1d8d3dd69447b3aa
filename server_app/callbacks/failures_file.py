"""`failures.jsonl`: every reply that was left out, with the reason."""

import json
from pathlib import Path

from server_app.callbacks import Callback, History
from server_app.round_lines import FAILURES, keep_lines
from server_app.writing import writing


class FailuresFile(Callback):
    """One JSON object per failure; the file exists once something has failed."""

    writes = "failures.jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_start(self, history: History) -> None:
        keep_lines(self._path, history.last_round, FAILURES)

    def record(self, server_round: int, partition: int, reason: str) -> None:
        """Append one failure immediately, so that it is on disk even if its round never ends."""
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            entry = {"round": server_round, "partition": partition, "reason": reason}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
