"""What readers of a table's part must know besides its numbers, a sentence each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from data.text import label, one_line
from runs.averaging import seed_of
from runs.entries import Entry
from runs.protocol import ended_early, name_of, progress
from runs.run import Run

HARDWARE = ("cpu", "gpu")  # of `RunRecord.machine`


def named(line: str) -> str:
    """A line's label for people; an experiment without axes has one without a name."""
    return label(line, 120) or "all runs"


def notes_on(entries: Sequence[Entry], lines: Mapping[str, Mapping[int, Run]]) -> Iterator[str]:
    """All of them.

    Args:
        entries: Of the part, complete or not.
        lines: The runs that are averaged, by label and seed.
    """
    yield from _unfinished(entries)
    yield from _stopped(lines)
    yield from _tuning(entries, lines)
    yield from _environments(run for runs in lines.values() for run in runs.values())


def _unfinished(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        if (run := entry.run).status != "finished":
            why = f": {one_line(run.reason).rstrip('.')}" if run.reason else ""
            yield f"Left out: {named(entry.label)}, seed {seed_of(run)} ({name_of(run)}), {progress(run)}{why}."


def _stopped(lines: Mapping[str, Mapping[int, Run]]) -> Iterator[str]:
    """Rounds differ between runs that a rule of their config ended."""
    ended = {
        line: [f"{run.done} of {run.asked}" for run in runs.values()]
        for line, runs in lines.items()
        if any(map(ended_early, runs.values()))
    }
    if ended:
        words = "; ".join(f"{named(line)}: {', '.join(rounds)}" for line, rounds in ended.items())
        yield f"Stopping rules ended runs early, so rounds differ: {words}."


def _tuning(entries: Iterable[Entry], lines: Iterable[str]) -> Iterator[str]:
    """How many settings were tried for each line; nothing if nobody said."""
    tried: dict[str, set[int | None]] = {line: set() for line in lines}
    for entry in entries:
        if entry.label in tried:
            tried[entry.label].add(entry.trials)
    found = set().union(*tried.values())
    if not found or found == {None}:
        return
    if len(found) == 1:
        count = found.pop()
        yield f"Tuning: {count} setting{'' if count == 1 else 's'} tried for each line."
        return
    words = (f"{named(line)}: {' or '.join(sorted(map(_count, counts)))}" for line, counts in tried.items())
    yield f"Tuning budgets differ (settings tried): {'; '.join(words)}."


def _environments(runs: Iterable[Run]) -> Iterator[str]:
    """Versions and processors that differ: no other data or budget, but numbers may be others in their last digits."""
    found: dict[str, set[str]] = {}
    for record in (run.record for run in runs if run.record):
        for name, value in {**record.versions, **{key: record.machine.get(key, "") for key in HARDWARE}}.items():
            found.setdefault(name, set()).add(value or "none")
    words = [f"{name} ({one_line('; '.join(sorted(values)))})" for name, values in found.items() if len(values) > 1]
    if words:
        yield f"Not all runs had the same {', '.join(words)}: numbers may differ a little for that reason alone."


def _count(trials: int | None) -> str:
    return "unknown" if trials is None else str(trials)
