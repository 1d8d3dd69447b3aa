"""`noisy-clients.json`: all clients, what the method takes each of them for, and what it is where that is known."""

import json
from collections.abc import Mapping, Sequence
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.common import log

from data.whole_files import replace_file
from server_app.callbacks import Callback, History, RoundResult
from server_app.members import Member
from server_app.node_names import name_of
from server_app.set_aside import move_aside


class NoisyClientsFile(Callback):
    """Replaces the file in one step when the method first judges clients, and when it judges otherwise.

    It must be called before the round's checkpoint is written: a run that is killed in between repeats that round.
    """

    writes = "noisy-clients.json"

    def __init__(self, path: Path, members: Sequence[Member]) -> None:
        """Write to `path`; `members` are all clients of the run, in partition order."""
        self._path = path
        self._members = list(members)
        self._written: list[dict[str, Any]] | None = None

    def on_start(self, history: History) -> None:
        """Keep the judgement of a round that stays; set aside one of a round to be repeated, or a damaged one."""
        found = read_noisy_clients(self._path)
        if found is not None and found["round"] <= history.last_round:
            self._written = found["clients"]
        elif self._path.exists():
            aside = move_aside(self._path, self._path.parent)
            log(INFO, "%s is damaged, or of a round that is repeated; it is now %s.", self._path, aside)

    def after_round(self, result: RoundResult) -> None:
        if result.noisy_clients is None:
            return
        clients = [self._of(member, result) for member in self._members]
        if _judgement(clients) != _judgement(self._written or []):
            lines = ",\n".join(json.dumps(one, allow_nan=False) for one in clients)  # one per client, for people
            replace_file(self._path, f'{{"round": {result.server_round}, "clients": [\n{lines}\n]}}\n'.encode())
            self._written = clients

    def _of(self, member: Member, result: RoundResult) -> dict[str, Any]:
        client, judged = member.partition_id, result.noisy_clients or {}
        return {
            "client": client,
            "node": name_of(member.node_id) or self._known_name(client),
            "images": member.num_examples,
            "noisy": judged.get(client),
            "really-noisy": (result.truly_noisy or {}).get(client),
            "wrong-labels": result.wrong_labels.get(client),
        }

    def _known_name(self, client: int) -> str | None:
        """The name in the file; that of a site that is away now is not known otherwise."""
        return next((one.get("node") for one in self._written or [] if one["client"] == client), None)


def _judgement(clients: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without names, which come and go with the nodes."""
    return [{key: value for key, value in one.items() if key != "node"} for one in clients]


def read_noisy_clients(path: Path) -> dict[str, Any] | None:
    """The file's ``round`` and ``clients``; None if it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    sound = isinstance(found, dict) and type(found.get("round")) is int and isinstance(found.get("clients"), list)
    return found if sound and all(_is_client(one) for one in found["clients"]) else None


def _is_client(one: Any) -> bool:
    return isinstance(one, Mapping) and type(one.get("client")) is int
