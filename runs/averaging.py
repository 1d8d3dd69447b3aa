"""Which runs of a label are one experiment with several seeds, and may be averaged."""

from collections.abc import Sequence

from runs.protocol import name_of, why_not_averaged
from runs.run import Run


def averaged(runs: Sequence[Run]) -> tuple[dict[int, Run], list[str]]:
    """The runs to average, by seed, and a sentence for each of the others.

    They are the largest group that agrees on everything but the seed; of groups with as many seeds, the newest. A seed
    counts once: of equal runs, the newest.

    Args:
        runs: Complete ones of one label, at least one.
    """
    groups: list[list[Run]] = []
    for run in runs:
        own = next((group for group in groups if not why_not_averaged(group[0], run)), None)
        if own is None:
            groups.append([run])
        else:
            own.append(run)
    largest = max(groups, key=lambda group: (len({seed_of(run) for run in group}), max(map(_age, group))))
    kept = {seed_of(run): run for run in sorted(largest, key=_age)}  # the newest comes last, and stays
    first = kept[min(kept)]
    sentences = []
    for run in runs:
        if run is kept.get(seed_of(run)):
            continue
        if run in largest:
            sentences.append(
                f"{name_of(run)} is left out: {name_of(kept[seed_of(run)])} is the same experiment with the same seed."
            )
        else:
            why = " ".join(why_not_averaged(first, run))
            sentences.append(f"{name_of(run)} is not averaged with {name_of(first)}: {why}")
    return dict(sorted(kept.items())), sentences


def seed_of(run: Run) -> int:
    return int(run.config.get("seed", 0))


def _age(run: Run) -> tuple[str, str]:
    """The newest is the largest."""
    return run.record.started if run.record else "", run.name
