"""What a release holds, in numbers."""

from dataclasses import dataclass

import numpy as np

from data.release import SPLITS, Release


@dataclass(frozen=True)
class Summary:
    """Counts of one release.

    Attributes:
        class_names: In index order.
        histograms: For each of `SPLITS`, (classes,) int64 images per label.
        double_labelled: Images that carry both labels.
        confusion: (classes, classes) int64 over them; rows are clean labels, columns noisy ones.
    """

    class_names: tuple[str, ...]
    histograms: dict[str, np.ndarray]
    double_labelled: int
    confusion: np.ndarray

    @property
    def agreement(self) -> float:
        """Share of double-labelled images whose two labels agree; NaN when there are none."""
        total = self.confusion.sum()
        return float(np.trace(self.confusion) / total) if total else float("nan")


def summarize(release: Release) -> Summary:
    """Count a release; reads all of its text files, and looks for a few of its images.

    Raises:
        DataError: What `Release.split` refuses.
    """
    classes = len(release.class_names)
    histograms = {name: np.bincount(release.split(name).labels, minlength=classes) for name in SPLITS}
    _, clean, noisy = release.double_labelled()
    confusion = np.bincount(clean.astype(np.int64) * classes + noisy, minlength=classes**2)
    return Summary(release.class_names, histograms, len(clean), confusion.reshape(classes, classes))


def as_table(summary: Summary) -> str:
    """The summary as aligned text."""
    width = max(len("class"), *(len(name) for name in summary.class_names))
    head = f"{'':>3}  {'class':<{width}}" + "".join(f"  {name:>11}" for name in SPLITS) + f"  {'noisy = clean':>13}"
    lines = [head]
    for index, name in enumerate(summary.class_names):
        counts = "".join(f"  {summary.histograms[split][index]:>11,}" for split in SPLITS)
        row = summary.confusion[index]
        share = f"{row[index] / row.sum():>13.1%}" if row.sum() else f"{'-':>13}"
        lines.append(f"{index:>3}  {name:<{width}}{counts}  {share}")
    totals = "".join(f"  {summary.histograms[split].sum():>11,}" for split in SPLITS)
    overall = f"{summary.agreement:>13.1%}" if summary.double_labelled else f"{'-':>13}"
    lines.append(f"{'':>3}  {'all':<{width}}{totals}  {overall}")
    lines.append(f"{summary.double_labelled:,} images of the clean lists carry a noisy label as well.")
    return "\n".join(lines)
