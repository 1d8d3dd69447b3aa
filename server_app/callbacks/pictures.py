"""`accuracy.png` and `confusion.png`, redrawn now and then while the run goes on, and at its end."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from config import PRESETS
from server_app.callbacks import OccasionalCallback, RoundResult

PUBLISHED = PRESETS / "notebook-curve.json"
INK, MUTED, ACCENT = "#222222", "#8a8f98", "#0b6bcb"
CELL_LABELS_UP_TO = 30  # classes; beyond, numbers in cells cannot be read


class Pictures(OccasionalCallback):
    """Draws with matplotlib's Agg canvas; no window, no global state."""

    def __init__(self, folder: Path, class_names: tuple[str, ...], title: str) -> None:
        super().__init__()
        self._folder = folder
        self._class_names = class_names
        self._title = title
        self._accuracies: list[float] = []

    def after_round(self, result: RoundResult) -> None:
        self._accuracies.append(result.test.accuracy)
        super().after_round(result)

    def write(self, result: RoundResult) -> None:
        draw_accuracy(self._accuracies, self._title).savefig(self._folder / "accuracy.png", dpi=150)
        title = f"Clean test after round {result.server_round}"
        draw_confusion(result.test.confusion, self._class_names, title).savefig(self._folder / "confusion.png", dpi=150)


def draw_accuracy(accuracies: list[float], title: str) -> Figure:
    """Accuracy on clean test per round, beside the published FedAvg run on the real Clothing1M."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    curve = published["test-accuracy-percent"]
    axes.plot(range(1, len(curve) + 1), curve, color=MUTED, linewidth=1.2)
    axes.annotate(
        "published FedAvg, real Clothing1M", (len(curve), curve[-1]), (0, -6), "data", "offset points",
        color=MUTED, ha="right", va="top", fontsize=8.5,
    )  # fmt: skip
    rounds = np.arange(1, len(accuracies) + 1)
    percent = 100 * np.asarray(accuracies)
    axes.plot(rounds, percent, color=ACCENT, linewidth=2, marker="o", markersize=3.5)
    crowded = len(accuracies) > 0.75 * len(curve)  # beside the last point there is no room: above it
    axes.annotate(
        f"this run: {percent[-1]:.1f} %",
        (float(rounds[-1]), percent[-1]),
        (0, 12) if crowded else (7, 0),
        "data",
        "offset points",
        color=ACCENT,
        ha="right" if crowded else "left",
        va="bottom" if crowded else "center",
        fontsize=9.5,
    )
    axes.set(xlabel="round", ylabel="accuracy on clean test, %", ylim=(0, 100), xlim=(0, None))
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _quiet(axes)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    return figure


def draw_confusion(confusion: np.ndarray, class_names: tuple[str, ...], title: str) -> Figure:
    """Rows are true classes and sum to 100 %; a row without images stays empty."""
    counts = confusion.sum(axis=1, keepdims=True)
    percent = 100 * np.divide(confusion, counts, out=np.zeros(confusion.shape), where=counts > 0)
    side = min(max(4.5, 0.52 * len(class_names) + 1.8), 24)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=100)
    if len(class_names) <= CELL_LABELS_UP_TO:
        for row, column in np.argwhere(percent >= 0.5):
            value = percent[row, column]
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5,
                color="white" if value > 55 else INK,
            )  # fmt: skip
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(ticks, class_names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true class, each row 100 %")
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    _quiet(axes)
    axes.tick_params(length=0)
    return figure


def _quiet(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c4c8ce")
    axes.tick_params(colors="#555b65", labelsize=8.5)
