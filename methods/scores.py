"""How accurate a method's per-image judgement is, where their true labels are known: as counts that add up.

Clients send `counts`; the server adds up a round's and divides (`image_scores`). True labels are those of a drawn
sample, of imported folders, and of clean lists with noise on top; nobody knows those of the million. They are used for
nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from learning.method import Method, Visit
from learning.schema import Number, Schema

SUSPECTED, CORRECTED = "suspected-images", "corrected-images"  # `messages.keys` has the same names


def counts(method: Method, visit: Visit, true: np.ndarray) -> dict[str, float]:
    """Counts over the client's images; the same names at every client of a method.

    Args:
        method: Which judgements it makes.
        visit: With what the method left in it; a client without judgement believes the given labels.
        true: (n,) int32, -1 where unknown.

    Returns:
        Over the images whose true label is known: ``images-known``, ``labels-right`` (given ones); with
        `Method.corrects` ``corrected-right``; with `Method.suspects` ``suspected``, ``suspected-wrong``. Over all
        images: ``corrected-images``, how many have another label than the given one, and ``suspected-images``.
    """
    if not (method.corrects or method.suspects):
        return {}
    given = visit.given.cpu()
    truth = torch.from_numpy(true.astype(np.int64))
    known, wrong = truth >= 0, (truth >= 0) & (given != truth)
    found = {"images-known": known.sum(), "labels-right": (given == truth).sum()}  # no label equals an unknown one
    if method.corrects:
        corrected = given if visit.corrected is None else visit.corrected.cpu()
        found["corrected-right"], found[CORRECTED] = (corrected == truth).sum(), (corrected != given).sum()
    if method.suspects:
        suspected = torch.zeros_like(known) if visit.suspected is None else visit.suspected.cpu()
        found["suspected"], found["suspected-wrong"] = (known & suspected).sum(), (wrong & suspected).sum()
        found[SUSPECTED] = suspected.sum()
    return {name: float(value) for name, value in found.items()}


def reported_counts(method: Method, images: int) -> Schema:
    """What `counts` returns for a client with so many images."""
    if not (method.corrects or method.suspects):
        return {}
    names = ["images-known", "labels-right"]
    names += ["corrected-right", CORRECTED] if method.corrects else []
    names += ["suspected", "suspected-wrong", SUSPECTED] if method.suspects else []
    return dict.fromkeys(names, Number(0, images, whole=True))


COUNTS = ("images-known", "labels-right", "corrected-right", "suspected", "suspected-wrong")


def image_scores(replies: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares over the round's images whose true labels are known.

    Args:
        replies: Metrics of each usable reply.

    Returns:
        ``label-accuracy`` of the given labels, ``corrected-label-accuracy``, ``suspects-precision`` and
        ``suspects-recall``, each where the method makes such a judgement and the share is one of something.
    """
    replies = list(replies)
    if not replies or "images-known" not in replies[0]:
        return {}
    total = {name: sum(float(one.get(name, 0.0)) for one in replies) for name in COUNTS}
    known, wrong = total["images-known"], total["images-known"] - total["labels-right"]
    if not known:
        return {}
    scores = {"label-accuracy": total["labels-right"] / known}
    if "corrected-right" in replies[0]:
        scores["corrected-label-accuracy"] = total["corrected-right"] / known
    if "suspected" in replies[0]:
        if total["suspected"]:
            scores["suspects-precision"] = total["suspected-wrong"] / total["suspected"]
        if wrong:
            scores["suspects-recall"] = total["suspected-wrong"] / wrong
    return scores
