"""What `python -m data show` counts."""

from pathlib import Path

import numpy as np

from data.release import open_release
from data.summary import Pairs, Summary, as_table, summarize


def test_counts_equal_those_of_the_text_files(tiny_sample: Path) -> None:
    summary = summarize(open_release(tiny_sample))
    clean = dict(line.split(" ") for line in (tiny_sample / "clean_label_kv.txt").read_text().split("\n")[:-1])
    noisy = dict(line.split(" ") for line in (tiny_sample / "noisy_label_kv.txt").read_text().split("\n")[:-1])
    both = clean.keys() & noisy.keys()
    assert len(summary.double_labelled) == len(both) > 10
    assert summary.double_labelled.agreement == np.mean([clean[key] == noisy[key] for key in both])
    expected = np.zeros((14, 14), dtype=np.int64)
    for key in both:
        expected[int(clean[key]), int(noisy[key])] += 1
    np.testing.assert_array_equal(summary.double_labelled.confusion(14).counts, expected)
    test = (tiny_sample / "clean_test_key_list.txt").read_text().split("\n")
    counted = np.bincount([int(clean[key]) for key in test], minlength=14)
    np.testing.assert_array_equal(summary.histograms["clean_test"], counted)


def test_classes_without_double_labels_have_a_dash() -> None:
    histograms = {name: np.array([1_234, 5]) for name in ("noisy_train", "clean_train", "clean_val", "clean_test")}
    none = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
    both = Pairs(np.array([0, 0, 0, 0]), np.array([0, 1, 0, 0]))
    some = as_table(Summary(("one", "two"), histograms, both, none))
    lines = some.split("\n")
    assert lines[1].split() == ["0", "one", "1,234", "1,234", "1,234", "1,234", "75.0%"]
    assert lines[2].split()[-1] == "-"
    assert lines[3].split()[-1] == "75.0%"
    assert len(lines) == 5
    without = as_table(Summary(("one", "\x1b[31m" + 60 * "x"), histograms, none, both)).split("\n")
    assert without[2].split()[1] == "?[31m" + 32 * "x" + "..."
    assert without[3].split()[-1] == "-"
    assert without[5] == "4 images of noisy train have a known true label; 75.0% of their noisy labels are right."
