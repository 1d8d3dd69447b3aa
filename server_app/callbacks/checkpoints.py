"""`checkpoints/`: the states after the last two rounds, and that of the round which `val-split` picks as the best."""

import shutil
from collections.abc import Mapping
from logging import WARNING
from pathlib import Path

from flwr.common import log

from data.sealed import DamagedError
from data.whole_files import replacing, round_files, round_path
from messages.arrays import as_numpy
from server_app.callbacks import Callback, History, RoundResult
from server_app.checkpoint_file import Checkpoint, load_checkpoint, save_checkpoint
from server_app.files import BEST
from server_app.set_aside import move_aside

KEPT = 2  # the newest, and one to fall back on if that is damaged
GONE = (
    "The model of round %d, which is the best so far, is no longer in %s; there is no best.safetensors until a later"
    " round is better."
)


class Checkpoints(Callback):
    """Writes ``round-00007.safetensors``, and copies the best one to ``best.safetensors``.

    The best may be the round before: with ``label-wave`` a round is judged by what its successor's clients report.
    """

    writes = "checkpoints"

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object],
        roll: str,
        run: str = "",
        lists: Mapping[str, str] | None = None,
        frozen: str = "",
        class_names: tuple[str, ...] = (),
    ) -> None:
        """Write into `folder` what `Checkpoint` describes."""
        self._folder = folder
        self._config = dict(config)
        self._roll = roll
        self._run = run
        self._lists = dict(lists or {})
        self._frozen = frozen
        self._class_names = class_names
        self._best: tuple[int, float] | None = None

    def on_start(self, history: History) -> None:
        """Set aside what is damaged or of rounds that will be repeated, so that it is in nobody's way."""
        self._folder.mkdir(exist_ok=True)
        self._best = history.best
        for server_round, path in round_files(self._folder).items():
            if server_round > history.last_round or not path.is_file():
                log(WARNING, "%s is not resumed from; it is now %s.", path, move_aside(path, self._folder.parent))
        self._check_best(history.last_round)

    def _check_best(self, last_round: int) -> None:
        """Leave as the best what a run that was never cut off would have after its last round."""
        path = self._folder / BEST
        if path.exists() or path.is_symlink():
            try:
                found = load_checkpoint(path).server_round
                if found == (self._best[0] if self._best else None):
                    return
                # A run may be cut off after it has saved a round, and before it has copied what that made the best.
                again = found > last_round
                why = "is of a round that will be repeated" if again else f"is of round {found}, which is not the best"
            except DamagedError as error:
                why = str(error)
            log(WARNING, "%s %s; it is now %s.", path, why, move_aside(path, self._folder.parent))
        self._copy_to_best()

    def _copy_to_best(self) -> None:
        """Copy the checkpoint of the best round, if there is one and nobody has removed its file."""
        if self._best is None:
            return
        source = round_path(self._folder, self._best[0])
        if not source.is_file():
            log(WARNING, GONE, self._best[0], self._folder)
            return
        with replacing(self._folder / BEST) as temporary:
            shutil.copyfile(source, temporary)

    def after_round(self, result: RoundResult) -> None:
        is_new, self._best = result.pick != self._best, result.pick
        path = round_path(self._folder, result.server_round)
        model = {name: as_numpy(array) for name, array in result.arrays.items()}
        save_checkpoint(
            path,
            Checkpoint(
                result.server_round,
                model,
                self._config,
                self._roll,
                result.state.strategy,
                self._best,
                method=result.state.method,
                visits=result.state.visits,
                run=self._run,
                lists=self._lists,
                frozen=self._frozen,
                class_names=self._class_names,
            ),
        )
        if is_new:
            self._copy_to_best()
        for old in [*round_files(self._folder).values()][:-KEPT]:
            old.unlink()
