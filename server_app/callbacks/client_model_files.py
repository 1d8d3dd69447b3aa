"""Removes clients' models to which no checkpoint that is kept refers; see `server_app.client_models`."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from data.sealed import DamagedError
from data.whole_files import round_files
from server_app.callbacks import Callback, History, RoundResult
from server_app.checkpoint_file import load_checkpoint
from server_app.client_models import ClientModels
from server_app.files import BEST


class ClientModelFiles(Callback):
    """Tidies up after each round; it must be called after `Checkpoints`.

    The best checkpoint may be an old one, and a run may be resumed from it: the models of that time are kept as well,
    so that there are up to twice as many as clients, and a few more.
    """

    def __init__(self, models: ClientModels, checkpoints: Path) -> None:
        """Tidy up `models`, to which the files in the folder `checkpoints` refer."""
        self._models = models
        self._folder = checkpoints
        self._visits: dict[int, Mapping[int, int]] = {}  # by the rounds of checkpoints

    def on_start(self, history: History) -> None:
        for path in (*round_files(self._folder).values(), self._folder / BEST):
            with contextlib.suppress(DamagedError):  # nobody will resume from it
                found = load_checkpoint(path)
                self._visits[found.server_round] = found.visits

    def after_round(self, result: RoundResult) -> None:
        self._visits[result.server_round] = result.state.visits
        kept = {*round_files(self._folder), *([result.pick[0]] if result.pick else [])}
        self._visits = {server_round: visits for server_round, visits in self._visits.items() if server_round in kept}
        wanted = {version for visits in self._visits.values() for version in visits.items()}
        self._models.remove_all_but(wanted, result.server_round)
