"""`python -m runs evaluate`: how well a run's model does, on its own test images or on others."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.confusion import of_counts
from data.contact_sheet import Tile, save_sheet
from data.errors import DamageError, DataError
from data.progress_bar import progress_bar
from data.text import label
from learning.evaluation import Evaluation
from runs.errors import RunsError
from runs.model.judging import Judged, judge
from runs.model.labelled import Labelled
from runs.model.opened import OpenedModel, open_model
from runs.printing import UNKNOWN, counted, in_percent, print_json, print_table, say
from runs.run import Run, is_run, read_run

WORST = 64  # mistakes on a sheet
NUMBERS = ("images", "found", "right", "F1")
# What metrics.jsonl calls accuracy and loss on the list that a setting names.
IN_METRICS = {"test-split": "test", "val-split": "val"}


def evaluate(
    model: Path, which: str, data: str, split: str, as_json: bool, confusion: Path | None, worst: Path | None
) -> None:
    """Evaluate, print, and then draw, so that a picture that cannot be written costs nothing else.

    Args:
        model: The folder of a run, or a file.
        which: Of a run's models, a `Which`.
        data: Where other images are; empty: the run's own.
        split: Which list of a release; empty: that of the run's test, or clean_test.
        as_json: For scripts.
        confusion: Picture to draw.
        worst: Contact sheet to write.

    Raises:
        RunsError: There is no such model, or nothing to evaluate it on.
        DataError: The images are not there, or cannot be read.
    """
    opened = open_model(model, which)
    images = Labelled.of_data(opened, data, split) if data else Labelled.of_run(opened, split)
    run = None if data else _run_of(opened)
    with progress_bar("images", len(images), "python -m runs evaluate") as done:
        judged = judge(opened, images, done)
    notes = [*images.notes, *([] if run is None else _changed(run, images))]
    same = None if run is None else repeats(run, opened, images.listed.name, judged.evaluation)
    if as_json:
        print_json(_as_json(opened, images, judged, notes, same))
    else:
        _print(opened, images, judged, notes, same)
    title = f"{images.where}, {opened.facts.architecture} after round {opened.facts.round}"
    if confusion is not None:
        _draw_confusion(judged.evaluation, opened, title, confusion)
    if worst is not None:
        _draw_worst(judged, opened, images, title, worst)


def repeats(run: Run, opened: OpenedModel, split: str, found: Evaluation) -> bool | None:
    """Whether these are the numbers of the model's round in metrics.jsonl, bit for bit; None if it has none."""
    kind = next((IN_METRICS[key] for key in IN_METRICS if run.config.get(key) == split), "")
    line = next((line for line in run.rounds if line["round"] == opened.facts.round), {})
    if line.get(f"{kind}-accuracy") is None or line.get(f"{kind}-loss") is None:
        return None
    return (line[f"{kind}-accuracy"], line[f"{kind}-loss"]) == (found.accuracy, found.loss)


def _run_of(opened: OpenedModel) -> Run | None:
    folder = next((one for one in (opened.path.parent, opened.path.parent.parent) if is_run(one)), None)
    return read_run(folder) if folder else None


def _changed(run: Run, images: Labelled) -> list[str]:
    """A sentence if the list is not the one with which the run began."""
    known = dict(run.record.data) if run.record else {}
    if run.config.get("train-split") == "noisy":
        known["noisy_train"] = known.get("train", "")
    if known.get(images.listed.name, "") in ("", images.listed.digest):
        return []
    return [f"{images.where} has changed since the run began: it names other images or labels."]


def _as_json(
    opened: OpenedModel, images: Labelled, judged: Judged, notes: list[str], same: bool | None
) -> dict[str, Any]:
    """For scripts; names and rounding are those of metrics.jsonl."""
    found = judged.evaluation
    return {
        "model": str(opened.path),
        "round": opened.facts.round,
        "data": str(images.release.root),
        "split": images.split or None,
        "digest": images.listed.digest,
        "images": found.num_examples,
        "accuracy": found.accuracy,
        "loss": found.loss if math.isfinite(found.loss) else None,
        "macro-f1": found.macro_f1,
        "class-names": list(opened.facts.class_names),
        "per-class-recall": [None if math.isnan(value) else round(float(value), 6) for value in found.recall],
        "confusion-matrix": found.confusion.tolist(),
        "as-in-metrics": same,
        "notes": notes,
    }


def _print(opened: OpenedModel, images: Labelled, judged: Judged, notes: list[str], same: bool | None) -> None:
    found = judged.evaluation
    say(f"{images.where}: {counted(found.num_examples, 'image')}")
    say(f"{opened.path}, after round {opened.facts.round}")
    say(f"accuracy {in_percent(found.accuracy)}, loss {found.loss:.4f}, macro F1 {found.macro_f1:.4f}\n")
    columns = ("class", *NUMBERS, "most often taken for")
    print_table(columns, _rows(found, opened.facts.class_names), right=NUMBERS)
    if same is not None:
        known = f"round {opened.facts.round} in metrics.jsonl"
        say(f"\nThese are the numbers of {known}, to the last bit." if same else f"\n{_other(known, notes)}")
    for note in notes:
        say(note)


def _other(known: str, notes: list[str]) -> str:
    why = "" if notes else "; the last digits depend on the machine, its threads and the version of torch"
    return f"These are not the numbers of {known}{why}."


def _rows(found: Evaluation, class_names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Of each class: how many images, its recall, precision and F1, and what it is taken for most often."""
    for number, name in enumerate(class_names):
        row = found.confusion[number].astype(np.int64)
        images, hits, answers = int(row.sum()), int(row[number]), int(found.confusion[:, number].sum())
        wrong = row.copy()
        wrong[number] = 0
        other = int(wrong.argmax())
        yield (
            label(name),
            f"{images:,}",
            in_percent(hits / images if images else None),
            in_percent(hits / answers if answers else None),
            f"{2 * hits / (images + answers):.3f}" if images + answers else UNKNOWN,
            f"{label(class_names[other])} ({int(wrong[other]):,})" if wrong[other] else "",
        )


def _draw_confusion(found: Evaluation, opened: OpenedModel, title: str, path: Path) -> None:
    from data.plots import draw_matrix, save  # matplotlib takes a second

    names = opened.facts.class_names
    save(draw_matrix(of_counts(found.confusion), names, title, rows="true class", columns="predicted"), path)


def _draw_worst(judged: Judged, opened: OpenedModel, images: Labelled, title: str, path: Path) -> None:
    rows, names = judged.worst(WORST), opened.facts.class_names
    if not len(rows):
        raise RunsError(f"there is no mistake to show, and {path} is not written.")
    tiles = []
    for row in rows:
        try:
            pixels = images.pixels_of(judged.names[row])
        except (DataError, DamageError):  # it was there a moment ago
            pixels = None
        lines = (
            f"labelled {names[judged.truth[row]]}",
            f"seen as {names[judged.predicted[row]]}",
            f"{judged.probability[row]:.0%}, {Path(judged.names[row]).name}",
        )
        tiles.append(Tile(pixels, lines))
    wrong = int((judged.predicted != judged.truth).sum())
    heading = f"The {len(rows)} worst of {wrong:,} mistakes" if wrong > len(rows) else counted(wrong, "mistake")
    save_sheet(tiles, path, f"{heading}, the highest loss first\n{title}")
