"""`checkpoints/`: the states after the last two rounds, and the best model by clean validation accuracy."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from messages.arrays import as_numpy
from server_app.callbacks import Callback, History, RoundResult
from server_app.checkpoint_file import Checkpoint, save_checkpoint

KEPT = 2  # the newest, and one to fall back on if that is damaged


class Checkpoints(Callback):
    """Writes ``round-00007.safetensors``, and copies the best one to ``best.safetensors``."""

    def __init__(self, folder: Path, config: Mapping[str, object], roll: str, run: str = "") -> None:
        self._folder = folder
        self._config = dict(config)
        self._roll = roll
        self._run = run
        self._best: tuple[int, float] | None = None

    def on_start(self, history: History) -> None:
        self._folder.mkdir(exist_ok=True)
        self._best = history.best
        for path in self._folder.glob("round-*.safetensors"):  # of rounds that will be repeated
            if int(path.stem.removeprefix("round-")) > history.last_round:
                path.unlink()

    def after_round(self, result: RoundResult) -> None:
        is_best = result.validation is not None and (self._best is None or result.validation.accuracy > self._best[1])
        if is_best and result.validation is not None:
            self._best = (result.server_round, result.validation.accuracy)
        path = self._folder / f"round-{result.server_round:05}.safetensors"
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
            ),
        )
        if is_best:
            temporary = self._folder / ".best"
            temporary.unlink(missing_ok=True)
            shutil.copyfile(path, temporary)
            temporary.replace(self._folder / "best.safetensors")
        for old in sorted(self._folder.glob("round-*.safetensors"))[:-KEPT]:
            old.unlink()
