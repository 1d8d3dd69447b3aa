"""`accuracy.png` and `confusion.png`, redrawn now and then during the run, and at its end.

With many classes the picture shows those with the most errors, and `confusion.npz` has the whole table.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from config.run_config import PRESETS
from data.confusion import MANY_CLASSES, of_counts
from data.whole_files import replace_file
from server_app.callbacks import History, OccasionalCallback, RoundResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MUTED, ACCENT = "#8a8f98", "#0b6bcb"


class Pictures(OccasionalCallback):
    """Draws with matplotlib's Agg canvas; no window, no global state."""

    writes = "accuracy.png"
    needed = False

    def __init__(self, folder: Path, class_names: tuple[str, ...], title: str, preset: str = "") -> None:
        """Draw into `folder`; a run of a `preset` whose published curve we have is compared with it."""
        super().__init__()
        self._preset = preset
        self._folder = folder
        self._class_names = class_names
        self._title = title
        self._accuracies: dict[int, float] = {}

    def on_start(self, history: History) -> None:
        evaluated = [line for line in history.metrics if line["test-accuracy"] is not None]
        self._accuracies = {line["round"]: line["test-accuracy"] for line in evaluated}

    def after_round(self, result: RoundResult) -> None:
        if result.test is not None:
            self._accuracies[result.server_round] = result.test.accuracy
            super().after_round(result)

    def write(self, result: RoundResult) -> None:
        if result.test is None:
            return
        if len(self._class_names) > MANY_CLASSES:
            table = io.BytesIO()
            np.savez_compressed(table, confusion=result.test.confusion, round=result.server_round)
            replace_file(self._folder / "confusion.npz", table.getvalue())
        from data.plots import draw_matrix, save  # here: a broken matplotlib costs the pictures and nothing else

        figure = draw_accuracy(self._accuracies, self._title, published_curve(self._preset))
        save(figure, self._folder / "accuracy.png")
        title = f"Clean test after round {result.server_round}"
        confusion = of_counts(result.test.confusion)
        figure = draw_matrix(confusion, self._class_names, title, rows="true class", columns="predicted")
        save(figure, self._folder / "confusion.png")


def published_curve(preset: str) -> list[float]:
    """Accuracy per round, in percent, of the published run that a preset repeats; empty if it repeats none."""
    path = PRESETS / f"{preset}-curve.json"
    if not preset or not path.is_file():
        return []
    curve: list[float] = json.loads(path.read_text(encoding="utf-8"))["test-accuracy-percent"]
    return curve


def draw_accuracy(accuracies: Mapping[int, float], title: str, published: Sequence[float] = ()) -> "Figure":
    """Accuracy on clean test by round, compared with a published run on the real Clothing1M if there is one."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from data.plots import INK, quiet

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    if published:
        axes.plot(range(1, len(published) + 1), published, color=MUTED, linewidth=1.2)
        axes.annotate(
            "published FedAvg, real Clothing1M", (len(published), published[-1]), (0, -6), "data", "offset points",
            color=MUTED, ha="right", va="top", fontsize=8.5,
        )  # fmt: skip
    rounds, shares = zip(*sorted(accuracies.items()), strict=True)
    percent = 100 * np.asarray(shares)
    axes.plot(rounds, percent, color=ACCENT, linewidth=2, marker="o", markersize=3.5)
    crowded = rounds[-1] > 0.75 * len(published)  # no space to the right of the last point: label it above
    axes.annotate(
        f"this run: {percent[-1]:.1f} %",
        (rounds[-1], percent[-1]),
        (0, 12) if crowded else (7, 0),
        "data",
        "offset points",
        color=ACCENT,
        ha="right" if crowded else "left",
        va="bottom" if crowded else "center",
        fontsize=9.5,
    )
    axes.set(xlabel="round", ylabel="accuracy on clean test, %", ylim=(0, 100), xlim=(0, None))
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet(axes)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    return figure
