"""How accurate a method's per-image judgement is, where their true labels are known: as counts that add up.

Clients send `counts`; the server adds up a round's and divides (`image_scores`). True labels are those of a drawn
sample, of imported datasets, and of clean lists with noise on top; nobody knows those of the million. They are used for
nothing else. Of some images no more is known than that their label is wrong (`WRONG`): that is enough to judge whom a
method suspects, and a correction that leaves that label; whether another one is right, nobody knows.

How many images a method suspects is its own choice, so that two methods' precision and recall can hardly be compared.
Hence a second pair of scores at a fixed budget, as many suspects as labels are wrong (Pickler, Kamassury and Silva
2025, arXiv 2510.16211): `found_in_budget`. The budget is each client's own, because
suspicion cannot be compared between clients without sending it. Two counts of a client say all that it needs.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data.layout.finding import WRONG
from learning.method import Method, Visit
from learning.schema import Number, Schema

SUSPECTED, CORRECTED = "suspected-images", "corrected-images"  # `messages.keys` has the same names
BUDGET, BUDGET_WRONG = "suspects-budget", "suspects-budget-wrong"


def counts(method: Method, visit: Visit, true: np.ndarray) -> dict[str, float]:
    """Counts over the client's images; the same names at every client of a method.

    Args:
        method: Which judgements it makes.
        visit: With what the method left in it; a client without judgement believes the given labels.
        true: (n,) int32, -1 where unknown, `WRONG` where only the given label is known to be wrong.

    Returns:
        Over the images of whose given label it is known whether it is right: ``images-known``, ``labels-right``; with
        `Method.corrects` ``corrected-known`` (the same of the corrected label) and ``corrected-right``; with
        `Method.suspects` ``suspected``, ``suspected-wrong``,
        ``suspects-budget`` (as many as have a wrong label; 0 without `Visit.suspicion`) and ``suspects-budget-wrong``
        (see `found_in_budget`; a fraction if there are ties). Over all images: ``corrected-images``, how many have
        another label than the given one, and ``suspected-images``.
    """
    if not (method.corrects or method.suspects):
        return {}
    given = visit.given.cpu()
    truth = torch.from_numpy(true.astype(np.int64))
    known = (truth >= 0) | (truth == WRONG)
    wrong = known & (given != truth)
    found = {"images-known": known.sum(), "labels-right": (given == truth).sum()}  # no label equals an unknown one
    if method.corrects:
        corrected = given if visit.corrected is None else visit.corrected.cpu()
        found["corrected-known"] = ((truth >= 0) | (known & (corrected == given))).sum()
        found["corrected-right"], found[CORRECTED] = (corrected == truth).sum(), (corrected != given).sum()
    if method.suspects:
        suspected = torch.zeros_like(known) if visit.suspected is None else visit.suspected.cpu()
        found["suspected"], found["suspected-wrong"] = (known & suspected).sum(), (wrong & suspected).sum()
        found[SUSPECTED] = suspected.sum()
    sent = {name: float(value) for name, value in found.items()}
    if method.suspects:
        sent[BUDGET], sent[BUDGET_WRONG] = 0.0, 0.0
        if visit.suspicion is not None:
            of_known, are_wrong = visit.suspicion.cpu()[known].numpy(), wrong[known].numpy()
            sent[BUDGET], sent[BUDGET_WRONG] = float(are_wrong.sum()), found_in_budget(of_known, are_wrong)
    return sent


def found_in_budget(suspicion: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> float:
    """How many wrong labels are among the b most suspect images, where b is how many are wrong in all.

    Where equal ones straddle the limit it is the expected number if chance decides between them, so that an equal
    suspicion of all n images finds ``b b / n``: the share of wrong labels.

    Args:
        suspicion: (n,) numbers, the larger the more suspect; no NaN.
        wrong: (n,).

    Returns:
        From 0 to b; 0 if nothing is wrong.
    """
    budget = int(wrong.sum())
    if not budget:
        return 0.0
    limit = np.partition(suspicion, -budget)[-budget]  # of the last one that is taken
    above, tied = suspicion > limit, suspicion == limit
    left = budget - int(above.sum())  # for the tied ones
    return int(wrong[above].sum()) + left * int(wrong[tied].sum()) / int(tied.sum())


def reported_counts(method: Method, images: int) -> Schema:
    """What `counts` returns for a client with so many images."""
    if not (method.corrects or method.suspects):
        return {}
    names = ["images-known", "labels-right"]
    names += ["corrected-known", "corrected-right", CORRECTED] if method.corrects else []
    names += ["suspected", "suspected-wrong", SUSPECTED, BUDGET] if method.suspects else []
    fraction: Schema = {BUDGET_WRONG: Number(0, images)} if method.suspects else {}
    return {**dict.fromkeys(names, Number(0, images, whole=True)), **fraction}


# What each count cannot exceed, whatever a client sends.
LIMITS = {
    "labels-right": "images-known",
    "corrected-known": "images-known",
    "corrected-right": "corrected-known",
    "suspected": "images-known",
    "suspected-wrong": "suspected",
    BUDGET: "images-known",
    BUDGET_WRONG: BUDGET,
}


def image_scores(replies: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares over the round's images of whose labels it is known whether they are right, each from 0 to 1.

    Args:
        replies: Metrics of each usable reply.

    Returns:
        ``label-accuracy`` of the given labels, ``corrected-label-accuracy``, ``suspects-precision``,
        ``suspects-recall``, ``suspects-at-budget-precision`` and ``suspects-at-budget-fnr`` (false-negative rate: the
        share of the wrong labels that the budget does not find), each where the method makes such a judgement and the
        share is one of something.
    """
    replies = list(replies)
    if not replies or "images-known" not in replies[0]:
        return {}
    total = _totals(replies)
    known, wrong = total["images-known"], total["images-known"] - total["labels-right"]
    if not known:
        return {}
    scores = {"label-accuracy": total["labels-right"] / known}
    if total["corrected-known"]:
        scores["corrected-label-accuracy"] = total["corrected-right"] / total["corrected-known"]
    if total["suspected"]:
        scores["suspects-precision"] = total["suspected-wrong"] / total["suspected"]
    if "suspected" in replies[0] and wrong:
        scores["suspects-recall"] = min(total["suspected-wrong"] / wrong, 1.0)
    if total[BUDGET]:
        scores["suspects-at-budget-precision"] = total[BUDGET_WRONG] / total[BUDGET]
        scores["suspects-at-budget-fnr"] = (total[BUDGET] - total[BUDGET_WRONG]) / total[BUDGET]
    return scores


def _totals(replies: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Each count over all replies, 0 where there is none."""
    total = dict.fromkeys(["images-known", *LIMITS], 0.0)
    for reply in replies:
        found = {"images-known": float(reply.get("images-known", 0.0))}
        for name, limit in LIMITS.items():
            found[name] = min(float(reply.get(name, 0.0)), found[limit])
        for name, value in found.items():
            total[name] += value
    return total
