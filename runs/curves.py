"""The accuracies of several runs in one picture."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.plots import INK, quiet

# Okabe and Ito's colours, which people with any colour vision tell apart; then the same with other lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
LINES = ("-", "--", ":", "-.")
NARROW = 32  # letters of what a name is measured on
MOST_MARKED = 60  # rounds: more markers would hide the lines


def draw_curves(curves: Sequence[Mapping[int, float]], names: Sequence[str], on: Sequence[str] = ()) -> Figure:
    """Accuracy by round.

    Args:
        curves: For each run, percent by evaluated round; without any, it has a name and no line.
        names: Of the runs, short.
        on: What each accuracy is measured on; all the same if empty: clean test. The axis says it, or each name if
            they differ.
    """
    measured = dict.fromkeys(on or ["clean test"])
    if len(measured) > 1:
        below = ["\n".join(textwrap.wrap(f"on {of}", NARROW)) for of in on]  # long lines would leave no room to draw
        names = [f"{name}\n{of}" for name, of in zip(names, below, strict=True)]
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = []
    for number, curve in enumerate(curves):
        rounds = sorted(curve)
        (line,) = axes.plot(
            rounds,
            [curve[one] for one in rounds],
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINES[number // len(COLOURS) % len(LINES)],
            linewidth=1.8,
            marker="o" if len(rounds) <= MOST_MARKED else "",
            markersize=3.5,
        )
        lines.append(line)
    axes.set(xlabel="round", ylabel="accuracy, %" if len(measured) > 1 else f"accuracy on {next(iter(measured))}, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.set_ylim(*_limits([value for curve in curves for value in curve.values()]))
    quiet(axes)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    legend = figure.legend(
        lines, [str(number) for number in range(len(lines))], loc="outside right upper", frameon=False, fontsize=8.5
    )
    for text, name in zip(legend.get_texts(), names, strict=True):  # as labels, names that begin with "_" are left out
        text.set_parse_math(False)
        text.set(text=name, color=INK)
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """From somewhat below the least to somewhat above the largest, but no noise enlarged: five points at least."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    space = max(2.5 - (high - low) / 2, 0.06 * (high - low))
    return max(0.0, low - space), min(100.0, high + space)
