"""The picture of a run's accuracy beside what was published: which line it has, and that all words can be read."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from config.published import published_for
from server_app.callbacks.pictures import MANY_ROUNDS, draw_accuracy

SHORT = {1: 0.2, 2: 0.3}


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _ours(figure: Figure) -> Annotation:
    (ours,) = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    return ours


@pytest.mark.parametrize(
    ("preset", "method", "drawn"),
    [
        ("", "ce", []),
        ("clothing1m", "ce", []),
        ("fnbench", "ce", []),
        ("fnbench", "feddiv", []),
        ("notebook", "ce", ["FedAvg, each round on test"]),
        ("notebook", "elr", ["FedAvg, each round on test"]),
        ("fedcorr", "fedcorr", ["FedCorr, best round on test"]),
        ("fedcorr", "feddiv", ["FedDiv, best round on test"]),
        ("fedcorr", "fedclean", ["FedAvg, best round on test"]),
    ],
)
def test_what_was_published_is_drawn_for_its_preset_alone(preset: str, method: str, drawn: list[str]) -> None:
    figure = draw_accuracy(SHORT, "title", published_for(preset, method))
    (axes,) = figure.axes
    assert len(axes.lines) == 1 + len(drawn)
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == pytest.approx([20, 30])
    assert [word.split("(")[1].split(")")[0] for word in _words(figure)] == drawn


def test_a_number_is_a_line_across_the_picture_and_a_curve_has_its_rounds() -> None:
    line, curve = (
        draw_accuracy(SHORT, "title", published_for(*names)).axes[0].lines[0]
        for names in (("fedcorr", "feddiv"), ("notebook", "ce"))
    )
    assert np.asarray(line.get_ydata()).tolist() == [72.96, 72.96]
    assert np.asarray(line.get_xdata()).tolist() == [0, 1]  # shares of the axis
    assert line.get_linestyle() != curve.get_linestyle()
    assert np.asarray(curve.get_xdata()).tolist() == list(range(1, 41))
    assert np.asarray(curve.get_ydata())[[0, -1]].tolist() == [63.13, 68.48]


@pytest.mark.parametrize("last", [0.6, 0.7, 0.7296, 0.9])
@pytest.mark.parametrize(("rounds", "preset"), [(1100, "fedcorr"), (12, "notebook"), (40, "notebook")])
def test_no_word_lies_on_another_or_on_a_published_line(last: float, rounds: int, preset: str) -> None:
    published = published_for(preset, "feddiv")
    assert published is not None
    figure = draw_accuracy({rounds: last}, "title", published)
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    below, inside = legend.get_window_extent(), axes.get_tightbbox()
    assert inside is not None
    assert below.y1 <= inside.y0
    assert 0 <= below.x0 < below.x1 <= figure.bbox.x1
    ours = _ours(figure).get_window_extent()
    low, high = axes.transData.inverted().transform([ours.p0, ours.p1])[:, 1]
    assert not low <= published.at(rounds) <= high


def test_many_rounds_have_no_points() -> None:
    for rounds, marker in ((MANY_ROUNDS, "o"), (MANY_ROUNDS + 1, "None")):
        (line,) = draw_accuracy(dict.fromkeys(range(1, rounds + 1), 0.5), "title").axes[0].lines
        assert str(line.get_marker() or "None") == marker
