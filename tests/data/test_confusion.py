"""Tables and pictures of few classes and of many, whatever the classes are called."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.confusion import MANY_CLASSES, WORST, of_counts, of_labels
from data.plots import draw_clients, draw_matrix, save
from data.text import LABEL, label


def by_hand(true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true, given), 1)
    return counts


def test_a_small_table_is_whole() -> None:
    true, noisy = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    for found in (of_labels(true, noisy, 3), of_counts(by_hand(true, noisy, 3))):
        assert found.classes.tolist() == [0, 1, 2]
        assert found.counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_of_many_classes_those_with_the_most_errors_are_shown() -> None:
    rng = np.random.default_rng(1)
    classes = MANY_CLASSES + 50
    true = rng.integers(0, classes, 20_000)
    noisy = np.where(rng.random(20_000) < true / classes, rng.integers(0, classes, 20_000), true)
    counts = by_hand(true, noisy, classes)
    errors = counts.sum(axis=1) - np.diag(counts)
    for found in (of_labels(true, noisy, classes), of_counts(counts)):
        assert found.of == classes
        assert len(found.classes) == WORST
        shown = found.classes.tolist()
        assert errors[shown].min() >= np.delete(errors, shown).max()
        assert found.counts.shape == (WORST, WORST + 1)
        for row, one in enumerate(shown):
            assert found.counts[row, :-1].tolist() == counts[one][shown].tolist()
            assert found.counts[row].sum() == counts[one].sum()


def test_a_table_of_all_classes_is_not_needed_for_the_worst() -> None:
    labels = np.arange(32_767)
    found = of_labels(labels, labels[::-1], 32_767)  # 8 GiB
    assert found.counts.shape == (WORST, WORST + 1)


NAMES = (
    "$", "$x_{1", r"\frac", "a_b^c", r"\$", "%", "x" * 500, "שלום", "مرحبا", "\u202eabc", "👨‍👩‍👧", "日本語", "a\nb",
    "\x1b[31m", "\ud800", "<b>&amp;", "{0} %s",
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_whatever_a_class_is_called_it_is_drawn(tmp_path: Path, suffix: str) -> None:
    labels = np.arange(len(NAMES)).repeat(2)
    matrix = draw_matrix(of_labels(labels, labels[::-1], len(NAMES)), NAMES, "$\\frac title", "$", "_")
    clients = draw_clients([np.arange(9), np.arange(9, len(labels))], labels, NAMES, "$\\frac{ title")
    shown = [text.get_text() for text in matrix.axes[0].get_yticklabels()]
    assert shown[:6] == list(NAMES[:6])  # as they are, not as mathematics
    assert shown[6] == "x" * (LABEL - 3) + "..."
    assert shown[12:14] == ["a?b", "?[31m"]
    for figure in (matrix, clients):
        save(figure, tmp_path / f"picture{suffix}")
        assert (tmp_path / f"picture{suffix}").stat().st_size > 1000


@given(st.text(max_size=100))
def test_a_label_is_short_printable_and_on_one_line(name: str) -> None:
    assert label(name).isprintable()
    assert len(label(name)) <= LABEL
    assert label(name) == name or len(name) > LABEL or not name.isprintable()


def test_pictures_of_many_classes_are_small_and_drawn_in_seconds(tmp_path: Path) -> None:
    classes = 20_000
    names = tuple(f"class {number}" for number in range(classes))
    labels = np.arange(classes).repeat(2)
    begin = time.process_time()
    save(draw_matrix(of_labels(labels, labels[::-1], classes), names, "t", "rows", "columns"), tmp_path / "matrix.png")
    save(draw_clients(np.array_split(np.arange(2 * classes), 100), labels, names, "t"), tmp_path / "clients.png")
    assert time.process_time() - begin < 300  # 3 on an idle core, and hours if all were drawn
    for name in ("matrix.png", "clients.png"):
        assert (tmp_path / name).stat().st_size < 500_000
        with Image.open(tmp_path / name) as image:
            assert max(image.size) < 4000
