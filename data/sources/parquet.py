"""Parquet files with a column of images, as the Hugging Face hub has them: how they are built, and their labels.

The library `datasets` writes an image as a struct of ``bytes``, the image file as it is, and ``path``; it describes the
columns in the file's metadata under ``huggingface``, where a ``ClassLabel`` has the names of the classes. Files without
that description, of pandas for instance, have whole numbers or texts as labels.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data.errors import DataError
from data.layout.key_files import problem_of_names
from data.text import beginning, one_line, shown

MAGIC = b"PAR1"
POINTER = b"version https://git-lfs"  # what a clone has instead of a file, without Git LFS
STRUCT, BYTES = "a struct of bytes and path", "bytes"
CLASSES, NUMBERS, TEXTS = "class labels", "whole numbers", "texts"
Place = TypeVar("Place")


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        path: Where it is.
        name: Its path below the dataset's folder.
        schema: A `pyarrow.Schema`.
        metadata: A `pyarrow.parquet.FileMetaData`.
        features: What ``huggingface`` says of each column; empty if it says nothing.
        starts: (g + 1,) int64 first row of each row group, and the number of rows.
    """

    path: Path
    name: str
    schema: Any
    metadata: Any
    features: Mapping[str, Any]
    starts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])


@dataclass(frozen=True)
class Column:
    """Labels of all rows of some files.

    Attributes:
        kind: `CLASSES`, `NUMBERS` or `TEXTS`.
        values: (n,) int64, or (n,) texts; -1 or None where there is none.
        names: Of the classes, if these are class labels.
    """

    kind: str
    values: np.ndarray
    names: tuple[str, ...] = ()


def open_shard(path: Path, root: Path) -> Shard:
    """Read what a file says of itself.

    Raises:
        DataError: It is damaged, or no parquet file.
    """
    name = path.relative_to(root).as_posix()
    with sentences(path), path.open("rb") as file:
        begin = file.read(len(POINTER))
    if begin == POINTER:
        raise DataError(f"{path} is a pointer of Git LFS, not the file; `git lfs pull` in {root} gets it.")
    if not begin.startswith(MAGIC):
        raise DataError(f"{path} is no parquet file: it begins with {beginning(begin)}; copy it again.")
    with sentences(path), opened(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        described = (schema.metadata or {}).get(b"huggingface")
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise ValueError("its row groups do not add up")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return Shard(path, name, schema, metadata, _features(path, described), starts)


def type_of(shard: Shard, column: str) -> Any:
    """The `pyarrow.DataType` of a column.

    Raises:
        DataError: There is no such column, or more than one.
    """
    names = shard.schema.names
    if names.count(column) != 1:
        what = "more than one column" if column in names else "no column"
        raise DataError(f"{shard.path} has {what} {shown(column)}; its columns are {columns_of(shard)}.")
    return shard.schema.field(column).type


def columns_of(shard: Shard) -> str:
    """Names of all columns, for a sentence."""
    return one_line(", ".join(shard.schema.names))


def is_image(type_: Any) -> str:
    """`STRUCT` or `BYTES` if a column can hold image files, else empty."""
    import pyarrow as pa

    if pa.types.is_struct(type_) and (place := type_.get_field_index("bytes")) >= 0:
        return STRUCT if is_image(type_.field(place).type) == BYTES else ""
    return BYTES if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) else ""


def kind_of(shard: Shard, column: str) -> tuple[str, tuple[str, ...]]:
    """What kind of labels a column holds, empty if none; and the names of its classes.

    Raises:
        DataError: There is no such column, or a class has no plain name.
    """
    import pyarrow as pa

    type_ = type_of(shard, column)
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    about = shard.features.get(column)
    if pa.types.is_integer(type_):
        if not isinstance(about, dict) or about.get("_type") != "ClassLabel" or about.get("names") is None:
            return NUMBERS, ()
        names = about["names"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{shard.path} has a column {shown(column)} whose names of classes are no list of texts.")
        if problem := problem_of_names(names):
            raise DataError(f"{shard.path} has a wrong name of a class in column {shown(column)}, number {problem}")
        return CLASSES, tuple(names)
    return (TEXTS, ()) if pa.types.is_string(type_) or pa.types.is_large_string(type_) else ("", ())


def read_column(shards: Sequence[Shard], column: str, flag: str) -> Column:
    """Labels of all rows of some files.

    Args:
        shards: At least one.
        column: Its name.
        flag: By which it was chosen, for a sentence.

    Raises:
        DataError: It is missing, has another type, differs between files, or holds a label that no class has.
    """
    kind, names = kind_of(shards[0], column)
    parts = []
    for shard in shards:
        if not kind_of(shard, column)[0]:
            raise DataError(
                f"{shard.path} has column {shown(column)} as {one_line(str(type_of(shard, column)))}; {flag} must name"
                " one of class labels, whole numbers or texts."
            )
        if (found := kind_of(shard, column)) != (kind, names):
            what = f"holds {found[0]}" if found[0] != kind else "has other names of classes"
            raise DataError(
                f"{shard.path}, column {shown(column)}, {what}, and in {shards[0].path} it holds {kind}; all files of a"
                " split must have the same columns."
            )
        parts.append(_values(shard, column, kind))
        if kind == CLASSES and len(parts[-1]) and parts[-1].max() >= len(names):
            raise DataError(
                f"{shard.path} has label {parts[-1].max()} in column {shown(column)}, which has {len(names)} classes;"
                f" it must be from 0 to {len(names) - 1}, or -1."
            )
    return Column(kind, np.concatenate(parts), names)


def _values(shard: Shard, column: str, kind: str) -> np.ndarray:
    """The labels of one file, (n,) int64 or texts."""
    import pyarrow as pa

    with sentences(shard.path), opened(shard.path, shard.metadata) as file:
        read = file.read(columns=[column]).column(0)
        if len(read) != len(shard):
            raise ValueError("a column is short")
        if pa.types.is_dictionary(read.type):
            read = read.cast(read.type.value_type)
        if kind == TEXTS:
            values = np.empty(len(read), object)
            values[:] = read.to_pylist()
            return values
        numbers: np.ndarray = read.cast(pa.int64()).fill_null(-1).to_numpy()
    if len(numbers) and numbers.min() < -1:
        raise DataError(
            f"{shard.path} has {numbers.min()} in column {shown(column)}; it must have whole numbers from 0, or -1 for"
            " none."
        )
    return numbers


def _features(path: Path, text: bytes | None) -> Mapping[str, Any]:
    """What ``huggingface`` says of each column."""
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        if not isinstance(features, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} has metadata 'huggingface' that is not as `datasets` writes it.") from None
    return features


@contextmanager
def opened(path: Path, metadata: Any = None) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, which reads with checksums where the file has some."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
        yield file


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one sentence."""
    try:
        yield
    except OSError as error:
        why = error.strerror or one_line(str(error))
        raise DataError(f"{path} cannot be read ({why}); copy it again.") from None
    except DataError:
        raise
    except Exception as error:  # pyarrow has many, and hands on those of its parts
        raise DataError(f"{path} is damaged ({one_line(str(error))}); copy it again.") from None


def coded(columns: Mapping[Place, Column], root: Path, what: str) -> tuple[tuple[str, ...], dict[Place, np.ndarray]]:
    """Names, and for each column its values' places among them, (n,) int64, -1 for none.

    Names are those of the class labels, if there are any, and whole numbers are places among them then. Otherwise they
    are all values that there are, in their order.

    Args:
        columns: Which hold labels of the same kind of thing.
        root: The dataset, for a sentence.
        what: One of these things, likewise.

    Raises:
        DataError: Two columns have different names, one has texts and another numbers, or a value has no name.
    """
    classes = [column.names for column in columns.values() if column.kind == CLASSES]
    if any(names != classes[0] for names in classes):
        raise DataError(f"{root} has columns with different names of classes; they must be the same in all of them.")
    if not classes and len({column.kind for column in columns.values()}) > 1:
        raise DataError(f"{root} has {what} as {NUMBERS} in one column and as {TEXTS} in another; it must be one kind.")
    values: list[Any]
    if classes:
        values = list(classes[0])
    else:
        every = {value for column in columns.values() for value in column.values.tolist()}
        values = sorted(every - {-1, None})
    place_of = {value: place for place, value in enumerate(values)}

    def places(column: Column) -> np.ndarray:
        if classes and column.kind != TEXTS:
            if len(column.values) and column.values.max() >= len(values):
                raise DataError(f"{root} has {what} {column.values.max()}, and {len(values)} names of classes.")
            return column.values
        try:
            found = [-1 if value in (-1, None) else place_of[value] for value in column.values.tolist()]
        except KeyError as error:
            raise DataError(
                f"{root} has {what} {shown(error.args[0])}, which is no name of its class labels."
            ) from None
        return np.array(found, np.int64)

    return tuple(map(str, values)), {place: places(column) for place, column in columns.items()}
