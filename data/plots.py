"""Pictures of labels: what is confused with what, and which client holds what."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#222222"
CELL_LABELS_UP_TO = 30  # classes; beyond that, numbers in cells are unreadable


def draw_matrix(counts: np.ndarray, class_names: tuple[str, ...], title: str, rows: str, columns: str) -> Figure:
    """A confusion matrix in percent of each row; a row without images stays empty.

    Args:
        counts: (classes, classes) integers.
        class_names: In index order.
        title: Above the picture.
        rows: What a row is, for its axis.
        columns: What a column is.
    """
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(max(4.5, 0.52 * len(class_names) + 1.8), 24)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=100)
    if len(class_names) <= CELL_LABELS_UP_TO:
        for row, column in np.argwhere(percent >= 0.5):
            value = percent[row, column]
            colour = "white" if value > 55 else INK
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(ticks, class_names, fontsize=8)
    axes.set(xlabel=columns, ylabel=f"{rows}, each row 100 %")
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    quiet(axes)
    axes.tick_params(length=0)
    return figure


def draw_clients(counts: np.ndarray, class_names: tuple[str, ...], title: str) -> Figure:
    """Clients against classes: how many images of each label a client holds, and how many in all.

    Args:
        counts: (clients, classes) integers.
        class_names: In index order.
        title: Above the picture.
    """
    width = min(max(6.0, 0.11 * len(counts) + 3.0), 24)
    height = min(max(4.2, 0.24 * len(class_names) + 2.2), 24)
    figure = Figure(figsize=(width, height), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    clients = np.arange(len(counts))
    top.bar(clients, counts.sum(axis=1), color="#0b6bcb", width=0.8)
    top.set_ylabel("images")
    top.set_title(title, loc="left", fontsize=10.5, color=INK)
    image = bottom.imshow(counts.T, cmap=matplotlib.colormaps["Blues"], vmin=0, aspect="auto", interpolation="none")
    bottom.set_yticks(range(len(class_names)), class_names, fontsize=8)
    bottom.set_xlabel("client")
    figure.colorbar(image, ax=bottom, label="images of a label", pad=0.01)
    for axes in (top, bottom):
        quiet(axes)
    return figure


def quiet(axes: Axes) -> None:
    """Thin grey axes on two sides."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c4c8ce")
    axes.tick_params(colors="#555b65", labelsize=8.5)
