"""`python -m runs evaluate`: how well a run's model does, on its own test images or on others."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data.confusion import of_counts
from data.contact_sheet import Tile, fitted, save_sheet
from data.errors import DamageError, DataError
from data.progress_bar import cpus, progress_bar
from data.text import label
from learning.evaluation import Evaluation
from runs.errors import RunsError
from runs.model.judging import Judged, judge
from runs.model.labelled import Labelled
from runs.model.opened import OpenedModel, open_model
from runs.printing import UNKNOWN, counted, in_percent, print_json, print_table, say
from runs.run import Run, is_run, read_run

WORST = 64  # mistakes on a sheet
NUMBERS = ("images", "recall", "precision", "F1")
ROUNDING = 1e-4  # by how much two machines may differ in a loss
# What metrics.jsonl calls accuracy and loss on the list that a setting names.
IN_METRICS = {"test-split": "test", "val-split": "val"}

Known = tuple[float, float]  # accuracy and loss


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
    run = _run_of(opened)
    with progress_bar("images", len(images), "python -m runs evaluate") as done:
        judged = judge(opened, images, done)
    changed = [] if data or run is None else _changed(run, images)
    notes = [*images.notes, *changed]
    known = None if run is None or (data and not _are_those_of(run, images)) else in_metrics(run, opened, images)
    if as_json:
        print_json(_as_json(opened, images, judged, notes, known))
    else:
        _print(opened, images, judged, notes, known)
    title = f"{images.where}, {opened.facts.architecture} after round {opened.facts.round}"
    if confusion is not None:
        _draw_confusion(judged.evaluation, opened, title, confusion)
    if worst is not None:
        _draw_worst(judged, opened, images, title, worst)


def in_metrics(run: Run, opened: OpenedModel, images: Labelled) -> Known | None:
    """What metrics.jsonl says of the model's round on this list; None if nothing."""
    kind = next((IN_METRICS[key] for key in IN_METRICS if run.config.get(key) == images.listed.name), "")
    line = next((line for line in run.rounds if line["round"] == opened.facts.round), {})
    if line.get(f"{kind}-accuracy") is None or line.get(f"{kind}-loss") is None:
        return None
    return line[f"{kind}-accuracy"], line[f"{kind}-loss"]


def _run_of(opened: OpenedModel) -> Run | None:
    folder = next((one for one in (opened.path.parent, opened.path.parent.parent) if is_run(one)), None)
    return read_run(folder) if folder else None


def _digest(run: Run, images: Labelled) -> str:
    """Of the list of this name with which the run began; empty if unknown."""
    known = dict(run.record.data) if run.record else {}
    if run.config.get("train-split") == "noisy":
        known["noisy_train"] = known.get("train", "")
    return str(known.get(images.listed.name, ""))


def _are_those_of(run: Run, images: Labelled) -> bool:
    """Whether images from elsewhere are those of the run: a list of the same names and labels, of the same classes."""
    same = np.array_equal(images.classes, np.arange(len(images.classes)))
    return same and _digest(run, images) == images.listed.digest


def _changed(run: Run, images: Labelled) -> list[str]:
    """A sentence if the list is not the one with which the run began."""
    if _digest(run, images) in ("", images.listed.digest):
        return []
    return [f"{images.where} has changed since the run began: it names other images or labels."]


def _as_json(
    opened: OpenedModel, images: Labelled, judged: Judged, notes: list[str], known: Known | None
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
        "as-in-metrics": None if known is None else known == (found.accuracy, found.loss),
        "notes": notes,
    }


def _print(opened: OpenedModel, images: Labelled, judged: Judged, notes: list[str], known: Known | None) -> None:
    found = judged.evaluation
    say(f"{images.where}: {counted(found.num_examples, 'image')}")
    say(f"{opened.path}, after round {opened.facts.round}")
    say(f"accuracy {in_percent(found.accuracy)}, loss {found.loss:.4f}, macro F1 {found.macro_f1:.4f}\n")
    columns = ("class", *NUMBERS, "most often taken for")
    print_table(columns, _rows(found, opened.facts.class_names), right=NUMBERS)
    if known == (found.accuracy, found.loss):
        say(f"\nThese are the numbers of round {opened.facts.round} in metrics.jsonl, to the last bit.")
    elif known is not None:
        say(f"\n{_other(known, found, opened.facts.round, bool(notes))}")
    for note in notes:
        say(note)


def _other(known: Known, found: Evaluation, server_round: int, explained: bool) -> str:
    accuracy, loss = known
    rounding = ROUNDING * max(1.0, abs(loss))
    if abs(accuracy - found.accuracy) < 1.5 / found.num_examples and abs(loss - found.loss) < rounding:
        why = "; the last digits depend on the machine, its threads and the version of torch"
    else:
        changed = "; rounding alone hardly does that: the images, or how they are read, must have changed"
        why = "" if explained else changed
    there = f"metrics.jsonl has accuracy {in_percent(accuracy)}, loss {loss:.4f}"
    return f"These are not the numbers of round {server_round}, of which {there}{why}."


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

    def tile(row: int) -> Tile:
        try:
            pixels = fitted(images.pixels_of(judged.names[row]))  # whole photos would take gigabytes
        except (DataError, DamageError):  # it was there a moment ago
            pixels = None
        lines = (
            f"labelled {names[judged.truth[row]]}",
            f"seen as {names[judged.predicted[row]]}",
            f"{judged.probability[row]:.0%}, {Path(judged.names[row]).name}",
        )
        return Tile(pixels, lines)

    with ThreadPoolExecutor(cpus()) as pool:
        tiles = list(pool.map(tile, rows.tolist()))
    wrong = int((judged.predicted != judged.truth).sum())
    heading = f"The {len(rows)} worst of {wrong:,} mistakes" if wrong > len(rows) else counted(wrong, "mistake")
    save_sheet(tiles, path, f"{heading}, the highest loss first\n{title}")
