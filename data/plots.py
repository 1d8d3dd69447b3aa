"""Pictures of labels: what is confused with what, and which client holds what."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.confusion import MANY_CLASSES, WORST, Confusion
from data.text import label

INK = "#222222"
CELL_LABELS_UP_TO = WORST  # classes; beyond that, numbers in cells are unreadable


def draw_matrix(confusion: Confusion, class_names: tuple[str, ...], title: str, rows: str, columns: str) -> Figure:
    """A confusion matrix in percent of each row; a row without images stays empty.

    Args:
        confusion: Of all classes, or of those that are confused most.
        class_names: In index order, all of them.
        title: Above the picture.
        rows: What a row is, for its axis.
        columns: What a column is.
    """
    counts = confusion.counts
    down = [label(class_names[index]) for index in confusion.classes]
    across = down + ["all others"] * (counts.shape[1] - counts.shape[0])
    if len(across) > len(down):
        title = f"{title}\nthe {len(down)} of {confusion.of:,} classes with the most errors"
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(max(4.5, 0.52 * len(down) + 1.8), 24)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=100)
    if len(down) <= CELL_LABELS_UP_TO:
        for row, column in np.argwhere(percent >= 0.5):
            value = percent[row, column]
            colour = "white" if value > 55 else INK
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(len(across)), across, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(len(down)), down, fontsize=8, parse_math=False)
    axes.set(xlabel=columns, ylabel=f"{rows}, each row 100 %")
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
    quiet(axes)
    axes.tick_params(length=0)
    return figure


def draw_clients(parts: Sequence[np.ndarray], labels: np.ndarray, class_names: tuple[str, ...], title: str) -> Figure:
    """Clients against classes: how many images of each label a client holds, and how many in all.

    Args:
        parts: For each client, (m,) rows of `labels`.
        labels: (n,) integers.
        class_names: In index order; of more than `MANY_CLASSES`, those with the most images are shown.
        title: Above the picture.
    """
    shown = np.arange(len(class_names))
    if len(shown) > MANY_CLASSES:
        shown = np.argsort(-np.bincount(labels, minlength=len(class_names)), kind="stable")[:WORST]
        title = f"{title}\nthe {len(shown)} of {len(class_names):,} classes with the most images"
    place = np.full(len(class_names), len(shown))
    place[shown] = np.arange(len(shown))
    counts = np.stack([np.bincount(place[labels[part]], minlength=len(shown) + 1)[:-1] for part in parts])
    width = min(max(6.0, 0.11 * len(parts) + 3.0), 24)
    height = min(max(4.2, 0.24 * len(shown) + 2.2), 24)
    figure = Figure(figsize=(width, height), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    top.bar(np.arange(len(parts)), [len(part) for part in parts], color="#0b6bcb", width=0.8)
    top.set_ylabel("images")
    top.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
    image = bottom.imshow(counts.T, cmap=matplotlib.colormaps["Blues"], vmin=0, aspect="auto", interpolation="none")
    bottom.set_yticks(range(len(shown)), [label(class_names[index]) for index in shown], fontsize=8, parse_math=False)
    bottom.set_xlabel("client")
    figure.colorbar(image, ax=bottom, label="images of a label", pad=0.01)
    for axes in (top, bottom):
        quiet(axes)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture, in the format of the path's suffix.

    Raises:
        OSError: It cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about letters that the font lacks, such as emoji: they become boxes
        figure.savefig(path, dpi=150)


def quiet(axes: Axes) -> None:
    """Thin grey axes on two sides."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c4c8ce")
    axes.tick_params(colors="#555b65", labelsize=8.5)
