"""How well the ranking finds wrong labels, where somebody knows which are wrong, as in the drawn sample."""

from dataclasses import dataclass

import numpy as np

from data.layout.finding import WRONG
from methods.scores import found_in_budget
from runs.labels.doubted import Doubted
from runs.printing import in_percent


@dataclass(frozen=True)
class Score:
    """All of it over images of whose label it is known whether it is right.

    Attributes:
        known: How many there are.
        true_known: Of how many of them the true class is known; of the others no more than that their label is wrong.
        wrong: How many of their labels are wrong.
        auc: The chance that an image with a wrong label ranks before one with a right label (ROC AUC).
        first_tenth: Share of wrong labels in the first tenth of the ranking.
        first_as_many: Share of wrong labels among as many as are wrong, see `methods.scores.found_in_budget`.
        missed: Share of the wrong labels that are not among these: the false-negative rate at that budget.
        suggested: Of the images with a wrong label and a known true class, the share whose suggested class is that one;
            None if there are none.
    """

    known: int
    true_known: int
    wrong: int
    auc: float
    first_tenth: float
    first_as_many: float
    missed: float
    suggested: float | None

    def sentence(self) -> str:
        all_known = self.true_known == self.known
        judged = (
            "True classes of {:,} images are known"
            if all_known
            else "Of {:,} images it is known whether their labels are right"
        )
        sentence = (
            f"{judged.format(self.known)}: {self.wrong:,} labels"
            f" ({in_percent(self.wrong / self.known)}) are wrong. ROC AUC of the ranking {self.auc:.3f};"
            f" {in_percent(self.first_tenth)} of its first tenth are wrong, and {in_percent(self.first_as_many)} of its"
            f" first {self.wrong:,}, which miss {in_percent(self.missed)} of the wrong labels."
        )
        if self.suggested is None:
            return sentence
        which = "" if all_known else " whose true class is known"
        return f"{sentence} The suggested class is right for {in_percent(self.suggested)} of the wrong labels{which}."


def score(doubted: Doubted, true: np.ndarray) -> Score | None:
    """Compare the ranking with the truth.

    Args:
        doubted: The ranking.
        true: (n,) int32, the true classes in its order, -1 where nobody knows, `WRONG` where only the given label is
            known to be wrong.

    Returns:
        None if no label is known to be wrong, or none to be right.
    """
    from sklearn.metrics import roc_auc_score  # takes a second

    rows = np.flatnonzero(((true >= 0) | (true == WRONG)) & np.isfinite(doubted.margins))
    wrong = (doubted.given != true)[rows]
    count = int(wrong.sum())
    if not 0 < count < len(rows):
        return None
    found = found_in_budget(-doubted.margins[rows], wrong)
    right_class, shown = (doubted.predicted == true)[rows], (true >= 0)[rows]
    return Score(
        len(rows),
        int(shown.sum()),
        count,
        float(roc_auc_score(wrong, -doubted.margins[rows])),
        float(wrong[: max(1, len(rows) // 10)].mean()),
        found / count,
        (count - found) / count,
        float(right_class[wrong & shown].mean()) if (wrong & shown).any() else None,
    )
