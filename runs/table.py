"""A table of runs: parts by setting, a line for each label, statistics over seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from config.measure import CLEAN_TEST, Measure
from config.rules import closest
from data.text import one_line, shown
from runs.averaging import averaged, seed_of
from runs.entries import Entry
from runs.errors import RunsError
from runs.notes import named, notes_on
from runs.protocol import differences, facts, name_of, setting, why_no_result
from runs.run import Run
from runs.scores import COLUMNS, DEFAULT, TARGET, WITHOUT, how_picked, last_rounds, scores
from runs.scores import Column as Column
from runs.statistics import Stat as Stat
from runs.statistics import stat_of


@dataclass(frozen=True)
class Line:
    """All runs of a label in one setting.

    Attributes:
        label: Its name.
        runs: By seed.
        stats: By the column's key; a column that no run has is missing.
        note: Why it is not compared with the baseline; empty if it is, or is the baseline.
        instead: What stands in place of a statistic, by the column's key: ``3 of 5 reached it``.
    """

    label: str
    runs: tuple[Run, ...]
    stats: dict[str, Stat]
    note: str = ""
    instead: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """What shares its data and its partition.

    Attributes:
        title: In words.
        baseline: Label of the line that the others are compared with; empty without one.
        lines: In the order in which labels first came.
        notes: What readers must know: tuning budgets, runs that are not complete.
        measure: What all accuracies are on; the title says it, if it is not clean test.
    """

    title: str
    baseline: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    measure: Measure = CLEAN_TEST


@dataclass(frozen=True)
class Table:
    """The whole.

    Attributes:
        columns: That were asked for.
        sections: In the order in which settings first came.
        problems: A sentence for each run or pair that was not averaged or compared, and did not say that it would not.
        notes: What readers must know of all sections.
    """

    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def table_of(
    entries: Sequence[Entry], columns: Sequence[str] = (), baseline: str = "", target: float | None = None
) -> Table:
    """The table of these runs.

    Args:
        entries: Complete or not; those that are not are named in the notes and left out.
        columns: Keys; empty for the default ones.
        baseline: A label.
        target: Accuracy to reach, 0 to 1, for the column ``rounds-to-target``, which it adds.

    Raises:
        RunsError: There is no such column or label.
    """
    labels = list(dict.fromkeys(entry.label for entry in entries))
    if baseline and baseline not in labels:
        known = ", ".join(map(shown, labels)) or "none"
        raise RunsError(f"there is no line {shown(baseline)}{closest(baseline, labels)}; lines are {known}.")
    complete = [entry.run for entry in entries if entry.run.status == "finished"]
    chosen = _columns(columns, target, complete)
    everywhere = [entry.run for entry in entries if entry.label == baseline and entry.run.status == "finished"]
    builders = [_Builder(title, own, chosen, baseline, target) for title, own in _sections(entries).items()]
    sections = tuple(builder.build(everywhere) for builder in builders)
    return Table(chosen, sections, tuple(_titled(builders)))


def _columns(keys: Sequence[str], target: float | None, runs: Sequence[Run]) -> tuple[Column, ...]:
    """Those that are asked for, or the default ones that a run has."""
    for key in keys:
        if key not in COLUMNS:
            raise RunsError(
                f"there is no column {shown(key)}{closest(key, COLUMNS)}; columns are {', '.join(COLUMNS)}."
            )
    if target is not None and not 0 < target <= 1:
        raise RunsError(f"the target is {target:g}; it must be an accuracy, above 0 and at most 1.")
    if TARGET in keys and target is None:
        raise RunsError(f"the column '{TARGET}' needs a target, such as an accuracy of 0.6.")
    there = {key for run in runs for key in scores(run)}
    wanted = list(dict.fromkeys(keys)) or [key for key in DEFAULT if key in there]
    wanted = wanted or [key for key in WITHOUT if key in there]
    if target is not None and TARGET not in wanted:
        wanted.append(TARGET)
    lengths = {last_rounds(run) for run in runs}
    titled = [_titled_column(COLUMNS[key], lengths, target, how_picked(runs)) for key in wanted]
    return tuple(sorted(titled, key=lambda column: column.picked_on_test))  # it stands apart, at the end


def _titled_column(column: Column, lengths: set[int], target: float | None, picked: str) -> Column:
    """With what its title depends on: a number, or how a round is picked."""
    if column.key == TARGET and target is not None:
        return replace(column, title=f"rounds to {100 * target:g} %")
    if column.key == "picked":
        return replace(column, title=f"round {picked}")
    if column.key != "last10" or lengths <= {10}:
        return column
    if len(lengths) > 1:
        return replace(column, title=f"{column.title}, or the last quarter")
    length = lengths.pop()
    return replace(column, title=f"mean of the last {length} rounds" if length > 1 else "last 1 round (a quarter)")


def _sections(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries by title. Settings that are read alike, but have other data, get a number.

    All of one title are measured on the same, which splits settings that a grid names, if need be. A reference whose
    own setting nothing else has joins the others', if these have one.
    """
    found: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.setting,) if entry.setting else facts(entry.run), []).append(entry)
    apart = {key for key, own in found.items() if all(entry.reference and not entry.setting for entry in own)}
    if len(rest := found.keys() - apart) == 1:
        found = {rest.pop(): list(entries)}
    titled: dict[str, list[Entry]] = {}
    for own in (part for whole in found.values() for part in _by_measure(whole)):
        first = next((entry for entry in own if not entry.reference), own[0])
        title = first.setting or setting(first.run)
        if (measure := first.run.measure) != CLEAN_TEST:
            title = f"{title}, {measure.words}"
        name, number = title, 1
        while name in titled:
            number += 1
            name = f"{title} (other data, {number})"
        titled[name] = own
    return titled


def _by_measure(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries of one setting, those together whose accuracies are on the same."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.run.measure.name, []).append(entry)
    return list(found.values())


def _titled(builders: Sequence["_Builder"]) -> Iterator[str]:
    for builder in builders:
        for problem in builder.problems:
            yield f"{one_line(builder.title)}: {problem}" if len(builders) > 1 else problem


class _Builder:
    """Makes one section, and collects what is wrong with it in `problems`."""

    def __init__(
        self, title: str, entries: Sequence[Entry], columns: Sequence[Column], baseline: str, target: float | None
    ) -> None:
        self.title = title
        self.problems: list[str] = []
        self._entries = entries
        self._columns = columns
        self._baseline = baseline
        self._target = target
        self._notes: list[str] = []

    def build(self, baselines: Sequence[Run]) -> Section:
        """The section.

        Args:
            baselines: Complete runs of the baseline in all sections.
        """
        runs: dict[str, list[Run]] = {}
        for entry in self._entries:
            if entry.run.status == "finished" and (why := why_no_result(entry.run)):
                self._add(f"{named(entry.label)}: {why}")
            elif entry.run.status == "finished":
                runs.setdefault(entry.label, []).append(entry.run)
        kept = {label: self._averaged(label, own) for label, own in runs.items()}
        base = kept.get(self._baseline)
        if self._baseline and kept and base is None:
            self._say_nearest(next(iter(kept.values())), baselines)
        lines = tuple(self._line(label, own, base or {}) for label, own in kept.items())
        notes = (*self._notes, *notes_on(self._entries, kept))
        measure = self._entries[0].run.measure
        return Section(self.title, self._baseline if base else "", lines, notes, measure)

    def _averaged(self, label: str, runs: Sequence[Run]) -> dict[int, Run]:
        kept, sentences = averaged(runs)
        for sentence in sentences:
            self._add(f"{named(label)}: {sentence}")
        return kept

    def _add(self, sentence: str, by_design: bool = False) -> None:
        self._notes.append(sentence)
        if not by_design:
            self.problems.append(sentence)

    def _say_nearest(self, own: Mapping[int, Run], baselines: Sequence[Run]) -> None:
        """Name what differs from the most similar run of the baseline in another section."""
        by_design = all(entry.reference for entry in self._entries)
        run = next(iter(own.values()))
        found = [
            (differences(run, other), other)
            for other in sorted(baselines, key=lambda one: seed_of(one) != seed_of(run))
        ]
        sentence = f"There is no complete run of {named(self._baseline)} here to compare with"
        if found:
            why, nearest = min(found, key=lambda pair: len(pair[0]))
            self._add(f"{sentence}; the nearest is {name_of(nearest)}. {' '.join(why)}".rstrip(), by_design)
        else:
            self._add(f"{sentence}.", by_design)

    def _line(self, label: str, runs: Mapping[int, Run], base: Mapping[int, Run]) -> Line:
        pairs: dict[int, Run] = {}
        note = ""
        if base and label != self._baseline:
            pairs, note = self._compared(label, runs, base)
        own, other = self._scores(runs), self._scores(pairs)
        stats, instead = {}, {}
        for column in self._columns:
            mine, theirs = own[column.key], other[column.key]
            if column.key == TARGET and len(mine) < len(runs):
                instead[column.key] = f"{len(mine)} of {len(runs)} reached it"
            elif mine:
                # Nothing is concluded from rounds that test picked, nor from those alone that reached a target.
                compare = not column.picked_on_test and (column.key != TARGET or len(theirs) == len(pairs))
                stats[column.key] = stat_of(mine, theirs if compare else {})
        return Line(label, tuple(runs.values()), stats, note, instead)

    def _scores(self, runs: Mapping[int, Run]) -> dict[str, dict[int, float]]:
        """By column and seed."""
        found = {seed: scores(run, self._target) for seed, run in runs.items()}
        return {
            column.key: {seed: one[column.key] for seed, one in found.items() if column.key in one}
            for column in self._columns
        }

    def _compared(self, label: str, runs: Mapping[int, Run], base: Mapping[int, Run]) -> tuple[dict[int, Run], str]:
        """The baseline's runs that those of a line may be compared with, by seed, and why others may not."""
        common = [seed for seed in runs if seed in base]
        why = {seed: found for seed in common if (found := differences(runs[seed], base[seed]))}
        reasons = []
        if not common:
            reasons.append("They have no seed in common.")
        elif why:
            first = next(iter(why))
            reasons += [f"Seed {' and '.join(map(str, why))}:" if len(why) < len(common) else "", *why[first]]
        if not reasons:
            return dict(base), ""
        name = named(self._baseline)
        note = " ".join([f"Not compared with {name}.", *filter(None, reasons)])
        if not any(entry.reference for entry in self._entries if entry.label == label):
            self.problems.append(f"{named(label)}: {note}")
        return {seed: base[seed] for seed in common if seed not in why}, note
