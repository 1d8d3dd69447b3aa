"""Parquet files in the form of the Hugging Face hub, written without the code under test."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ["cat", "dog", "owl"]
CLASSES = {"label": NAMES, "noisy": NAMES}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int, form: str = "PNG") -> bytes:
    """A small image file of one colour, which no other number has."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (number % 256, number // 256, 90)).save(out, form)
    return out.getvalue()


def pictures(numbers: Sequence[int]) -> list[Mapping[str, Any]]:
    """JPEGs and PNGs, as values of a column of images."""
    return [{"bytes": picture(n, "JPEG" if n % 2 else "PNG"), "path": f"{n}.x"} for n in numbers]


def write(
    path: Path,
    columns: Mapping[str, Sequence[Any]],
    classes: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    row_group_size: int = 100,
    metadata: bytes | None = None,
) -> Path:
    """One file.

    Args:
        path: Its folder is made.
        columns: Values by name; `image` holds images.
        classes: For columns that are class labels, the names of the classes; None: no metadata at all.
        types: Of columns where they are not to be guessed.
        row_group_size: In rows.
        metadata: Instead of what the library would write.
    """
    types = {"image": IMAGE, **(types or {})}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    table = pa.table(arrays)
    if classes is not None:
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        for name in columns:
            if name in classes:
                features[name] = {"names": list(classes[name]), "_type": "ClassLabel"}
            elif name != "image":
                features[name] = {"dtype": str(arrays[name].type), "_type": "Value"}
        metadata = json.dumps({"info": {"features": features}}).encode()
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_hub(root: Path) -> Path:
    """Six training images in two files, two of validation, three of test, which have no noisy labels."""
    for shard, rows in enumerate(([0, 1, 2, 3], [4, 5])):
        labels = {"label": [n % 3 for n in rows], "noisy": [(n + n // 4) % 3 for n in rows]}  # 4 and 5 are wrong
        write(root / f"data/train-{shard:05}-of-00002.parquet", {"image": pictures(rows), **labels}, CLASSES)
    write(
        root / "data/validation-00000-of-00001.parquet",
        {"image": pictures([6, 7]), "label": [0, 1], "noisy": [2, 1]},
        CLASSES,
    )
    write(root / "data/test-00000-of-00001.parquet", {"image": pictures([8, 9, 10]), "label": [2, 0, 1]}, CLASSES)
    return root
