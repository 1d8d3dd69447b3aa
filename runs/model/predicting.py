"""`python -m runs predict`: the class of each photo, and how probable the model takes it to be."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer

from data.contact_sheet import MOST, Tile, save_sheet
from data.progress_bar import progress_bar
from data.text import label, one_line
from learning.evaluation import answers, evaluation_batch
from runs.errors import RunsError
from runs.formats import as_cell
from runs.model.opened import OpenedModel, open_model
from runs.model.photos import Photo, photos_named, read_photos
from runs.printing import UNENDING, counted, print_json, print_table


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo.

    Attributes:
        path: Of its file.
        classes: (k,) int64, the most probable first; of equal ones the first.
        probabilities: (k,) float32.
        tile: The photo as a contact sheet shows it, (h, w, 3) uint8; None without a sheet, or beyond its end.
    """

    path: Path
    classes: np.ndarray
    probabilities: np.ndarray
    tile: np.ndarray | None = None


def predict(
    model: Path, which: str, named: Sequence[str], top: int, as_csv: bool, as_json: bool, sheet: Path | None
) -> None:
    """Predict, print, and then draw, so that a sheet that cannot be written costs nothing else.

    Args:
        model: The folder of a run, or a file.
        which: Of a run's models, a `Which`.
        named: Photos, or folders of them.
        top: How many classes to name for each.
        as_csv: For spreadsheets.
        as_json: For scripts.
        sheet: Contact sheet to write.

    Raises:
        RunsError: There is no such model, or no photo that can be read.
        DataError: A folder cannot be read, or the sheet not written.
    """
    if as_csv and as_json:
        raise RunsError("--csv and --json are given; it must be one of them.")
    paths, notes = photos_named(named)
    if not paths:
        where = ", ".join(one_line(_text(one)) for one in named)
        raise RunsError(f"there are no photos in {where}. {' '.join(notes)}".strip())
    opened = open_model(model, which)
    with progress_bar("photos", len(paths), "python -m runs predict") as done:
        predictions, problems = classify(opened, paths, top, done, MOST if sheet else 0)
    for note in (*notes, *problems.values()):
        typer.echo(f"python -m runs predict: {one_line(_text(note), UNENDING)}", err=True)
    names = opened.facts.class_names
    if as_json:
        _print_json(opened, predictions, problems)
    if not predictions:
        few = len(paths) == 1
        raise RunsError("the photo cannot be read." if few else f"none of {len(paths):,} photos can be read.")
    if as_csv:
        typer.echo(_csv(predictions, names), nl=False)
    elif not as_json:
        _print(predictions, names)
    if sheet is not None:
        title = f"{counted(len(predictions), 'photo')}\n{opened.facts.architecture} after round {opened.facts.round}"
        save_sheet([_tile(one, names) for one in predictions], sheet, title)


def classify(
    opened: OpenedModel,
    paths: Sequence[Path],
    top: int = 1,
    done: Callable[[int], None] = lambda count: None,
    tiles: int = 0,
) -> tuple[list[Prediction], dict[Path, str]]:
    """Apply a model to photos.

    Args:
        opened: The model.
        paths: Of the photos.
        top: How many classes to name for each.
        done: Hears how many more have been read.
        tiles: Of how many photos to keep a small picture.

    Returns:
        A prediction for each photo that can be read, in their order; and a sentence about each that cannot.
    """
    size = opened.facts.image_size
    batch = evaluation_batch(size, opened.compute.device)
    predictions: list[Prediction] = []
    problems: dict[Path, str] = {}
    waiting: list[Photo] = []

    def answer() -> None:
        if waiting:
            probabilities = _probabilities(opened, waiting)
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
            for photo, classes, row in zip(waiting, order, probabilities, strict=True):
                predictions.append(Prediction(photo.path, classes, row[classes], photo.tile))
            waiting.clear()

    for photo in read_photos(paths, size, tiles):
        if photo.problem:
            problems[photo.path] = photo.problem
        if photo.pixels is not None:
            waiting.append(photo)
        if len(waiting) == batch:
            answer()
        done(1)
    answer()
    return predictions, problems


def _probabilities(opened: OpenedModel, photos: Sequence[Photo]) -> np.ndarray:
    """(n, classes) float32."""
    pixels = np.stack([photo.pixels for photo in photos if photo.pixels is not None])
    none = np.zeros(len(pixels), np.int64)
    found = answers(opened.model, pixels, none, opened.compute, opened.facts.numbers)
    probabilities: np.ndarray = torch.cat([logits.softmax(dim=1) for logits, _ in found]).cpu().numpy()
    return probabilities


def _print(predictions: Sequence[Prediction], class_names: Sequence[str]) -> None:
    numbers = [title for title in _columns(predictions) if title.startswith("probability")]
    rows = []
    for one in predictions:
        row = [_text(one.path)]
        for number, probability in zip(one.classes, one.probabilities, strict=True):
            row += [label(class_names[number]), f"{100 * probability:.1f} %"]
        rows.append(row)
    print_table(_columns(predictions), rows, right=numbers)


def _csv(predictions: Sequence[Prediction], class_names: Sequence[str]) -> str:
    """A row for each photo, probabilities in full; by RFC 4180, with a byte order mark as labels.csv has it."""
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out)
    writer.writerow(_columns(predictions))
    for one in predictions:
        row = [as_cell(_text(one.path))]
        for number, probability in zip(one.classes, one.probabilities, strict=True):
            row += [as_cell(class_names[number]), str(probability)]
        writer.writerow(row)
    return out.getvalue()


def _columns(predictions: Sequence[Prediction]) -> list[str]:
    further = [
        f"{what} {place}" for place in range(2, len(predictions[0].classes) + 1) for what in ("class", "probability")
    ]
    return ["photo", "class", "probability", *further]


def _print_json(opened: OpenedModel, predictions: Sequence[Prediction], problems: dict[Path, str]) -> None:
    names = opened.facts.class_names
    print_json(
        {
            "model": _text(opened.path),
            "round": opened.facts.round,
            "photos": [
                {
                    "photo": _text(one.path),
                    "classes": [
                        {"class": names[number], "probability": float(probability) if probability >= 0 else None}
                        for number, probability in zip(one.classes, one.probabilities, strict=True)
                    ],
                }
                for one in predictions
            ],
            "not-read": [
                {"photo": _text(path), "reason": one_line(_text(problem), UNENDING)}
                for path, problem in problems.items()
            ],
        }
    )


def _text(path: Path | str) -> str:
    """A path, or a sentence with one, that can be printed: bytes that are no UTF-8 are written as such."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _tile(one: Prediction, class_names: Sequence[str]) -> Tile:
    return Tile(one.tile, (class_names[one.classes[0]], f"{one.probabilities[0]:.0%}", _text(one.path.name)))
