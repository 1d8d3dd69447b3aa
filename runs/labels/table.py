"""labels.csv: the ranking for a spreadsheet, and for people who label images anew."""

import csv
import math
from pathlib import Path

from data.layout.key_files import show
from runs.formats import as_cell
from runs.labels.doubted import Doubted
from runs.labels.photos import Photos

COLUMNS = (
    "rank", "client", "key", "file", "given", "given-name", "suggested", "suggested-name", "probability",
    "mean-margin", "visits",
)  # fmt: skip
BELIEVED = ("believed", "believed-name")  # with a method that corrects labels
KEEP = "keep"


def write_csv(path: Path, doubted: Doubted, photos: Photos) -> None:
    """Write all images in their order, as UTF-8 with a byte order mark: without it, Excel takes it for another text.

    Raises:
        OSError: It cannot be written.
    """
    names = [as_cell(name) for name in doubted.class_names]
    corrects = bool((doubted.believed >= 0).any())
    columns = (doubted.clients, doubted.keys, doubted.given, doubted.predicted, doubted.confidence, doubted.margins,
               doubted.visits, doubted.believed)  # fmt: skip
    with path.open("x", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(BELIEVED if corrects else ())])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for rank, (client, key, given, predicted, confidence, margin, visits, believed) in enumerate(rows, start=1):
            suggested = names[predicted] if predicted != given else KEEP
            cells = [
                rank, client, as_cell(show(key)), as_cell(photos.place(client, key)), given, names[given], predicted,
                suggested, _number(confidence), _number(margin), visits,
            ]  # fmt: skip
            judged = [believed, names[believed]] if believed >= 0 else ["", ""]
            writer.writerow([*cells, *(judged if corrects else ())])


def _number(value: float) -> str:
    """Empty for what is no number, which a spreadsheet would take for a formula: -inf."""
    return f"{value:.4f}" if math.isfinite(value) else ""
