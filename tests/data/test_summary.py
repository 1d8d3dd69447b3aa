"""What `python -m data show` counts."""

from pathlib import Path

import numpy as np

from data.release import open_release
from data.summary import Summary, as_table, summarize


def test_counts_equal_those_of_the_text_files(tiny_sample: Path) -> None:
    summary = summarize(open_release(tiny_sample))
    clean = dict(line.split(" ") for line in (tiny_sample / "clean_label_kv.txt").read_text().split("\n")[:-1])
    noisy = dict(line.split(" ") for line in (tiny_sample / "noisy_label_kv.txt").read_text().split("\n")[:-1])
    both = clean.keys() & noisy.keys()
    assert summary.double_labelled == len(both) > 10
    assert summary.agreement == np.mean([clean[key] == noisy[key] for key in both])
    expected = np.zeros((14, 14), dtype=np.int64)
    for key in both:
        expected[int(clean[key]), int(noisy[key])] += 1
    np.testing.assert_array_equal(summary.confusion, expected)
    test = (tiny_sample / "clean_test_key_list.txt").read_text().split("\n")
    counted = np.bincount([int(clean[key]) for key in test], minlength=14)
    np.testing.assert_array_equal(summary.histograms["clean_test"], counted)


def test_classes_without_double_labels_have_a_dash() -> None:
    histograms = {name: np.array([1_234, 5]) for name in ("noisy_train", "clean_train", "clean_val", "clean_test")}
    some = as_table(Summary(("one", "two"), histograms, 4, np.array([[3, 1], [0, 0]])))
    lines = some.split("\n")
    assert lines[1].split() == ["0", "one", "1,234", "1,234", "1,234", "1,234", "75.0%"]
    assert lines[2].split()[-1] == "-"
    assert lines[3].split()[-1] == "75.0%"
    none = as_table(Summary(("one", "two"), histograms, 0, np.zeros((2, 2), dtype=np.int64)))
    assert none.split("\n")[3].split()[-1] == "-"
