from pathlib import Path

import numpy as np
import pytest

from config.run_config import ConfigError
from data.layout.finding import SPLITS
from data.layout.index import Index
from data.noise.published import CONFUSION
from data.release import Release, open_release
from data.stores.folder import FolderStore
from methods.transition import estimate_transition, transition_from_counts

NONE = -1


def _release(classes: int = 3, **pairs: list[tuple[int, int]]) -> Release:
    """A release whose lists hold images with these clean and noisy labels."""
    labels = [pair for split in SPLITS for pair in pairs.get(split, [])]
    clean, noisy = np.array(labels, np.int16).reshape(-1, 2).T
    keys = np.array([f"images/0/{number}".encode() for number in range(len(labels))])
    counts = tuple(len(pairs.get(split, [])) for split in SPLITS)
    root = Path("/clothing")
    names = tuple(map(str, range(classes)))
    return Release(root, names, root, FolderStore(root, root), Index(keys, noisy, clean, clean, counts, "stamp"))


def test_images_of_clean_train_and_val_with_both_labels_are_counted() -> None:
    release = _release(
        noisy_train=[(NONE, 2), (0, 2)],
        clean_train=[(0, 0), (0, 0), (0, 1), (1, NONE), (2, 2)],
        clean_val=[(1, 1), (0, 0), (2, NONE)],
        clean_test=[(2, 0)] * 50,
    )
    matrix = estimate_transition("estimate", 1.0, release)
    np.testing.assert_allclose(matrix, np.array([[4 / 7, 2 / 7, 1 / 7], [1 / 4, 2 / 4, 1 / 4], [1 / 4, 1 / 4, 2 / 4]]))
    raw = estimate_transition("estimate", 0, release)
    np.testing.assert_allclose(raw, np.array([[3 / 4, 1 / 4, 0], [0, 1, 0], [0, 0, 1]]))


def test_labels_of_clean_test_never_count() -> None:
    def seen(secret: list[tuple[int, int]]) -> np.ndarray:
        release = _release(clean_train=[(0, 0), (1, 2)], clean_val=[(2, 1)], clean_test=secret)
        return estimate_transition("estimate", 1.0, release)

    for secret in ([(0, 1)] * 9, [(2, 2)] * 9):
        assert (seen(secret) == seen([])).all()


def test_without_images_with_both_labels_the_error_explains_what_to_do() -> None:
    release = _release(noisy_train=[(0, 1)], clean_train=[(0, NONE)], clean_val=[(1, NONE)], clean_test=[(0, 1)])
    with pytest.raises(ConfigError) as caught:
        estimate_transition("estimate", 1.0, release)
    assert str(caught.value) == (
        "run config: 'method-args' has transition='estimate', but no image of clean train or clean val in /clothing"
        " carries both labels; transition must be the path of a matrix."
    )
    with pytest.raises(ConfigError, match="14 classes, but /clothing has 3; transition must be the path of a matrix"):
        estimate_transition("clothing1m", 1.0, release)
    with pytest.raises(ConfigError, match="transition must be clothing1m or the path of a matrix"):
        estimate_transition("estimate", 1.0, _release(14))


def test_a_class_that_was_not_counted_needs_smoothing() -> None:
    release = _release(clean_train=[(0, 0), (1, 1)])
    with pytest.raises(ConfigError, match="smoothing=0, but no image of class 2 was counted; smoothing must be above"):
        estimate_transition("estimate", 0, release)
    np.testing.assert_allclose(estimate_transition("estimate", 1.0, release)[2], 1 / 3)


def test_the_published_matrix_is_of_fourteen_classes() -> None:
    matrix = estimate_transition("clothing1m", 0, _release(14))
    np.testing.assert_allclose(matrix, CONFUSION / CONFUSION.sum(axis=1, keepdims=True))
    assert (estimate_transition("clothing1m", 1.0, _release(14)) > 0).all()
    with pytest.raises(ConfigError, match="whose matrix is of 14 classes, but /clothing has 3; transition must be"):
        estimate_transition("clothing1m", 1.0, _release(3))
    with pytest.raises(ConfigError, match="transition must be estimate or the path of a matrix"):
        estimate_transition("clothing1m", 1.0, _release(clean_train=[(0, 0)]))


def test_a_file_on_the_server(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("0.9 0.1\n0.4 0.6\n")
    np.testing.assert_allclose(estimate_transition(str(path), 1.0, _release(2)), [[0.9, 0.1], [0.4, 0.6]])
    with pytest.raises(ConfigError, match=r"t\.txt, line 1 has 2 numbers; it must have 3"):
        estimate_transition(str(path), 1.0, _release(3))


def test_a_drawn_sample_has_images_to_count(tiny_sample: Path) -> None:
    release = open_release(tiny_sample)
    matrix = estimate_transition("estimate", 1.0, release)
    _, clean, noisy = release.double_labelled(("clean_train", "clean_val"))
    counts = np.zeros((14, 14))
    for pair in zip(clean, noisy, strict=True):
        counts[pair] += 1
    assert 0 < counts.sum() <= 32
    np.testing.assert_allclose(matrix, transition_from_counts(counts, 1))
