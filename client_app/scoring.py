"""How right a method's judgement of single images is, where their true labels are known: as counts that add up.

The server adds the counts of a round's clients up and divides (`server_app.methods.scores`). True labels are those of a
drawn sample, of imported folders, and of clean lists with noise on top; of the million nobody knows them. They are
used for nothing else.
"""

import numpy as np
import torch

from client_app.methods.method import Method, Visit


def counts(method: Method, visit: Visit, true: np.ndarray) -> dict[str, float]:
    """Counts over the client's images; the same names at every client of a method.

    Args:
        method: Which judgements it makes.
        visit: With what it left behind; a client without judgement believes the given labels.
        true: (n,) int32, -1 where unknown.

    Returns:
        ``images-known``, ``labels-right`` (given ones); with `Method.corrects` ``corrected-right``; with
        `Method.suspects` ``suspected``, ``suspected-wrong``. All over the images whose true label is known.
    """
    if not (method.corrects or method.suspects):
        return {}
    given = visit.labels.cpu()
    truth = torch.from_numpy(true.astype(np.int64))
    known, wrong = truth >= 0, (truth >= 0) & (given != truth)
    found = {"images-known": known.sum(), "labels-right": (given == truth).sum()}  # no label equals an unknown one
    if method.corrects:
        corrected = given if visit.corrected is None else visit.corrected.cpu()
        found["corrected-right"] = (corrected == truth).sum()
    if method.suspects:
        suspected = torch.zeros_like(known) if visit.suspected is None else visit.suspected.cpu()
        found["suspected"], found["suspected-wrong"] = (known & suspected).sum(), (wrong & suspected).sum()
    return {name: float(value) for name, value in found.items()}
