"""`accuracy.png`, `confusion.png`, `prediction-changes.png`: what there is to draw, now and then during the run, and at
its end.

With many classes the picture shows those with the most errors, and `confusion.npz` has the whole table.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from config.measure import CLEAN_TEST, Measure
from config.published import Published
from data.confusion import MANY_CLASSES, of_counts
from data.whole_files import replace_file
from learning.evaluation import Evaluation
from messages import keys
from server_app.callbacks import History, OccasionalCallback, RoundResult
from server_app.callbacks.metrics_file import as_json
from server_app.picking import WINDOW, share, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MUTED, ACCENT = "#8a8f98", "#0b6bcb"
LABEL_WIDTH = 45  # characters along an axis
MANY_ROUNDS = 200  # beyond that, points would merge into a thick line
NEAR = 14  # points of accuracy above the run's last one in which its label would lie on a published line


class Pictures(OccasionalCallback):
    """Draws with matplotlib's Agg canvas; no window, no global state."""

    writes = "accuracy.png"
    needed = False

    def __init__(
        self,
        folder: Path,
        class_names: tuple[str, ...],
        title: str,
        published: Published | None = None,
        measure: Measure = CLEAN_TEST,
        *,
        wave: bool = False,
    ) -> None:
        """Set up the pictures.

        Args:
            folder: Where they are drawn.
            class_names: In the order of their labels.
            title: Of the curves.
            published: What the run is compared with, if there is a test set.
            measure: What accuracies are on.
            wave: Whether the best model is picked by prediction changes, which are then drawn as well.
        """
        super().__init__()
        self._published = published if measure is CLEAN_TEST else None
        self._folder = folder
        self._class_names = class_names
        self._title = title
        self._measure, self._wave = measure, wave
        self._accuracies: dict[int, float] = {}
        self._changes: dict[int, float] = {}
        self._pick: int | None = None
        self._evaluated: tuple[int, Evaluation] | None = None  # the latest round with a confusion matrix

    def on_start(self, history: History) -> None:
        for line in history.metrics:
            self._note(line)
        self._pick = history.best[0] if history.best else None

    def after_round(self, result: RoundResult) -> None:
        evaluation = result.test or result.validation
        if evaluation is not None:
            self._evaluated = result.server_round, evaluation
        self._pick = result.pick[0] if result.pick else None
        if self._note(as_json(result)):
            super().after_round(result)

    def _note(self, line: Mapping[str, Any]) -> bool:
        """Remember what a round adds to the curves, if it does."""
        accuracy = share(line.get(self._measure.accuracy))
        if accuracy is not None:
            self._accuracies[line["round"] - self._measure.lag] = accuracy
        changes = share(line.get(keys.CHANGED)) if self._wave else None
        if changes is not None:
            self._changes[line["round"]] = changes
        return accuracy is not None or changes is not None

    def write(self, result: RoundResult) -> None:
        if self._evaluated and len(self._class_names) > MANY_CLASSES:
            table = io.BytesIO()
            np.savez_compressed(table, confusion=self._evaluated[1].confusion, round=self._evaluated[0])
            replace_file(self._folder / "confusion.npz", table.getvalue())
        from data.plots import draw_matrix, save  # here: a broken matplotlib costs the pictures and nothing else

        if self._accuracies:
            figure = draw_accuracy(self._accuracies, self._title, self._published, self._measure.name)
            save(figure, self._folder / "accuracy.png")
        if self._changes:
            save(draw_changes(self._changes, self._pick, self._title), self._folder / "prediction-changes.png")
        if self._evaluated:
            server_round, evaluation = self._evaluated
            title = f"{self._measure.name[0].upper()}{self._measure.name[1:]} after round {server_round}"
            confusion = of_counts(evaluation.confusion)
            figure = draw_matrix(confusion, self._class_names, title, rows="true class", columns="predicted")
            save(figure, self._folder / "confusion.png")


def draw_accuracy(
    accuracies: Mapping[int, float],
    title: str,
    published: Published | None = None,
    measured_on: str = CLEAN_TEST.name,
) -> "Figure":
    """Accuracy by round on what is named, compared with a published run if there is one.

    What was published is named below the axes, where no curve can run through its name.
    """
    from matplotlib.patheffects import withStroke

    figure, axes = _curves(title)
    rounds, shares = zip(*sorted(accuracies.items()), strict=True)
    percent = 100 * np.asarray(shares)
    last, side, length = float(percent[-1]), 1, 0  # `side` of the last point on which its label is: 1 above, -1 below
    if published:
        _draw_published(figure, axes, published)
        length = len(published.percent) if published.by_round else 0
        side = -1 if last < published.at(rounds[-1]) < last + NEAR else 1
    marker = "o" if len(rounds) <= MANY_ROUNDS else ""
    axes.plot(rounds, percent, color=ACCENT, linewidth=2, marker=marker, markersize=3.5)
    axes.annotate(
        f"this run: {last:.1f} %",
        (rounds[-1], last),
        (0, 12 * side),
        "data",
        "offset points",
        color=ACCENT,
        ha="right" if rounds[-1] > 0.75 * length else "left",
        va="bottom" if side > 0 else "top",
        fontsize=9.5,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )
    axes.set(ylabel=fill(f"accuracy on {measured_on}, %", LABEL_WIDTH), ylim=(0, 100), xlim=(0, None))
    return figure


def _draw_published(figure: "Figure", axes: "Axes", published: Published) -> None:
    """A curve if each round was published, else a line across the picture."""
    if published.by_round:
        rounds = range(1, len(published.percent) + 1)
        lines = axes.plot(rounds, published.percent, color=MUTED, linewidth=1.2, label=published.label)
    else:
        level = published.percent[0]
        lines = [axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (6, 3)), label=published.label)]
    figure.legend(handles=lines, loc="outside lower left", frameon=False, fontsize=8.5, labelcolor="#555b65")


def draw_changes(changes: Mapping[int, float], pick: int | None, title: str) -> "Figure":
    """Prediction changes by the round whose model they judge, their running mean, and the round that is picked.

    Args:
        changes: By the round in which clients reported them, which is one later.
        pick: The round whose model is the best; None before there is one.
        title: Above the picture.
    """
    figure, axes = _curves(title)
    reported = sorted(changes)
    values = [changes[number] for number in reported]
    rounds = [number - 1 for number in reported]
    axes.plot(rounds, 100 * np.asarray(values), color=MUTED, linewidth=1, marker="o", markersize=3)
    means = [smoothed(values[end - WINDOW : end]) for end in range(WINDOW, len(values) + 1)]
    axes.plot(rounds[WINDOW - 1 :], 100 * np.asarray(means), color=ACCENT, linewidth=2)
    by_round = dict(zip(rounds[WINDOW - 1 :], means, strict=True))
    if pick in by_round:
        axes.plot([pick], [100 * by_round[pick]], color=ACCENT, marker="o", markersize=8)
        axes.annotate(
            f"picked: round {pick}", (pick, 100 * by_round[pick]), (0, 12), "data", "offset points",
            color=ACCENT, ha="center", va="bottom", fontsize=9.5,
        )  # fmt: skip
    axes.set(ylabel=f"predictions that changed, % (blue: mean of {WINDOW})", ylim=(0, None), xlim=(0, None))
    return figure


def _curves(title: str) -> "tuple[Figure, Axes]":
    """A figure for curves over rounds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from data.plots import INK, quiet

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("round")
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet(axes)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    return figure, axes
