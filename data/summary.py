"""What a release holds, in numbers."""

from dataclasses import dataclass, field

import numpy as np

from data.confusion import Confusion, of_labels
from data.layout.finding import WRONG
from data.release import SPLITS, Release
from data.text import label


@dataclass(frozen=True)
class Pairs:
    """Images of which two labels are known.

    Attributes:
        true: (n,) the clean or true label.
        noisy: (n,) the noisy one.
    """

    true: np.ndarray
    noisy: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    @property
    def agreement(self) -> float:
        """Share of images whose two labels agree; NaN when there are none."""
        return float(np.mean(self.true == self.noisy)) if len(self) else float("nan")

    def confusion(self, classes: int) -> Confusion:
        return of_labels(self.true, self.noisy, classes)


@dataclass(frozen=True)
class Summary:
    """Counts of one release.

    Attributes:
        class_names: In index order.
        histograms: For each of `SPLITS` that there is, (classes,) int64 images per label.
        double_labelled: Images of the clean lists that carry both labels.
        drawn: Images of noisy train whose true label is known, as in drawn and imported releases.
        known_wrong: How many more images of noisy train have a label of which no more is known than that it is wrong.
        groups: For each list whose images belong to groups, (g,) images of each group that has any in it.
        alone: For each such list, how many of its images belong to none.
    """

    class_names: tuple[str, ...]
    histograms: dict[str, np.ndarray]
    double_labelled: Pairs
    drawn: Pairs
    known_wrong: int = 0
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)


def summarize(release: Release) -> Summary:
    """Count a release; reads all of its text files, and looks for a few of its images.

    Raises:
        DataError: What `Release.split` refuses.
    """
    classes = len(release.class_names)
    lists = [name for name in SPLITS if release.has(name)]
    histograms = {name: np.bincount(release.split(name).labels, minlength=classes) for name in lists}
    _, clean, noisy = release.double_labelled()
    rows = release.index.rows("noisy_train")
    given, true = release.index.noisy[rows], release.index.true[rows]
    known = true >= 0
    of_lists = {name: groups for name in lists if (groups := release.split(name).groups) is not None}
    sizes = {name: np.unique(groups[groups >= 0], return_counts=True)[1] for name, groups in of_lists.items()}
    alone = {name: int((groups < 0).sum()) for name, groups in of_lists.items()}
    pairs = Pairs(clean, noisy), Pairs(true[known], given[known])
    return Summary(release.class_names, histograms, *pairs, int((true == WRONG).sum()), sizes, alone)


def as_table(summary: Summary) -> str:
    """The summary as aligned text."""
    names = [label(name) for name in summary.class_names]
    both = summary.double_labelled
    totals = np.bincount(both.true, minlength=len(names))
    hits = np.bincount(both.true[both.true == both.noisy], minlength=len(names))
    width = max(map(len, ("class", *names)))
    lines = [
        f"{'':>3}  {'class':<{width}}"
        + "".join(f"  {name:>11}" for name in summary.histograms)
        + f"  {'noisy = clean':>13}"
    ]
    for index, name in enumerate(names):
        counts = "".join(f"  {images[index]:>11,}" for images in summary.histograms.values())
        share = f"{hits[index] / totals[index]:>13.1%}" if totals[index] else f"{'-':>13}"
        lines.append(f"{index:>3}  {name:<{width}}{counts}  {share}")
    sums = "".join(f"  {images.sum():>11,}" for images in summary.histograms.values())
    overall = f"{both.agreement:>13.1%}" if len(both) else f"{'-':>13}"
    lines.append(f"{'':>3}  {'all':<{width}}{sums}  {overall}")
    if summary.histograms.keys() - {"noisy_train"}:
        lines.append(f"{len(both):,} images of the clean lists carry a noisy label as well.")
    if missing := [name for name in SPLITS if name not in summary.histograms]:
        lines.append(f"There is no {', '.join(missing)}; `python -m data check` says what needs them.")
    if len(summary.drawn):
        lines.append(
            f"{len(summary.drawn):,} images of noisy train have a known true label; {summary.drawn.agreement:.1%} of"
            " their noisy labels are right."
        )
    if summary.known_wrong:
        lines.append(
            f"{summary.known_wrong:,} noisy labels are known to be wrong, while nobody knows what their images show."
        )
    for name, sizes in summary.groups.items():
        lines.append(
            f"The images of {name} belong to {len(sizes):,} groups of {sizes.min():,} to {sizes.max():,} images, median"
            f" {np.median(sizes):,.0f}" + (f"; {summary.alone[name]:,} belong to none." if summary.alone[name] else ".")
        )
    return "\n".join(lines)
