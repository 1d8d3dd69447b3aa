"""How right clients' judgement of single images was in a round: their counts (`client_app.scoring`) added up."""

from collections.abc import Iterable, Mapping
from typing import Any

COUNTS = ("images-known", "labels-right", "corrected-right", "suspected", "suspected-wrong")


def image_scores(replies: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Shares over the round's images whose true labels are known.

    Args:
        replies: Metrics of each good reply.

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
