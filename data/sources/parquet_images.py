"""The images in parquet files, one at a time, without reading all of them into memory."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.sources.parquet import Shard, is_image, opened, sentences, type_of
from data.text import one_line, shown

CACHE = 256 << 20  # bytes of row groups that are kept; neighbours are asked for one after the other
MOST_OF_A_GROUP = 1 << 30  # bytes of images that are read at a time; `datasets` puts 100 images into a row group


class Images:
    """The images of some files, a row group at a time; called by several threads."""

    def __init__(self, root: Path, shards: Sequence[Shard], column: str) -> None:
        """Nothing is read yet.

        Args:
            root: The dataset's folder, in which an image is that has a path and no bytes.
            shards: All of them.
            column: Of the images.

        Raises:
            DataError: A file has no such column, or not with images.
        """
        self._root, self._column = root, column
        self._shards = {shard.name: shard for shard in shards}
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()
        for shard in shards:
            if not is_image(type_of(shard, column)):
                raise DataError(
                    f"{shard.path} has column {shown(column)} as {one_line(str(type_of(shard, column)))}; --image must"
                    " name one of images: a struct of bytes and path."
                )

    def encoded(self, origin: str) -> bytes:
        """The file of the image at ``name:row``.

        Raises:
            DataError: There is none, or its row group is damaged.
        """
        name, _, row = origin.rpartition(":")
        shard, number = self._shards[name], int(row)
        group = int(np.searchsorted(shard.starts, number, side="right")) - 1
        data, path = self._image(self._group(shard, group), number - int(shard.starts[group]), shard)
        if data is None and path is not None:
            return self._file(path, origin).read_bytes()
        if data is None:
            raise DataError(f"{self._root / origin} holds no image.")
        return data

    def missing(self, shard: Shard) -> list[int]:
        """Rows that hold no image.

        Raises:
            DataError: A row has a path that leads out of the dataset's folder, or the file is damaged.
        """
        rows = []
        for group, start in enumerate(shard.starts[:-1].tolist()):
            if self._is_whole(shard, group):
                continue
            images = self._group(shard, group)
            for row in range(len(images)):
                data, path = self._image(images, row, shard)
                if data is None and path is None:
                    rows.append(start + row)
                elif data is None and path is not None:
                    self._file(path, f"{shard.name}:{start + row}")
        return rows

    def _is_whole(self, shard: Shard, group: int) -> bool:
        """Whether the file says that each row of a row group has its bytes, which saves reading it."""
        about = shard.metadata.row_group(group)
        for number in range(about.num_columns):
            one = about.column(number)
            if one.path_in_schema in (self._column, f"{self._column}.bytes"):
                known = one.statistics
                return known is not None and bool(known.has_null_count) and known.null_count == 0
        return False

    def _group(self, shard: Shard, group: int) -> Any:
        """Images of a row group, a `pyarrow.ChunkedArray`."""
        place = shard.name, group
        with self._lock:
            if place not in self._kept:
                read = self._read(shard, group)
                held = sum(one.nbytes for one in self._kept.values())
                while self._kept and held + read.nbytes > CACHE:
                    held -= self._kept.popitem(last=False)[1].nbytes
                self._kept[place] = read
            self._kept.move_to_end(place)
            return self._kept[place]

    def _read(self, shard: Shard, group: int) -> Any:
        with sentences(shard.path):
            about = shard.metadata.row_group(group)
            columns = [about.column(number) for number in range(about.num_columns)]
            size = sum(
                one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] == self._column
            )
        if size > MOST_OF_A_GROUP:
            raise DataError(
                f"{shard.path} has a row group with {size / 2**30:.1f} GiB of images, which would all be in memory at"
                " once; write it again with smaller ones, for instance `row_group_size=100`."
            )
        with sentences(shard.path), opened(shard.path, shard.metadata) as file:
            images = file.read_row_group(group, columns=[self._column]).column(0)
            if len(images) != shard.starts[group + 1] - shard.starts[group]:
                raise ValueError("a row group is short")
            return images

    def _image(self, images: Any, row: int, shard: Shard) -> tuple[bytes | None, str | None]:
        """Bytes and path of one image, as far as it has them."""
        with sentences(shard.path):
            value = images[row].as_py()
        if not isinstance(value, dict):
            return value, None
        path = value.get("path")
        return value.get("bytes"), path if isinstance(path, str) and path else None

    def _file(self, path: str, origin: str) -> Path:
        """The image file that a row names instead of holding it.

        Raises:
            DataError: It is not in the dataset's folder, or no file.
        """
        where = f"{self._root / origin} holds no image but its path, {shown(path)}"
        try:
            full = (self._root / path).resolve()
            inside = full.is_relative_to(self._root.resolve()) and not Path(path).is_absolute()
            is_file = inside and full.is_file()  # a pipe would be waited for
        except (OSError, ValueError):  # a name that no file can have, links in a circle
            raise DataError(f"{where}, which no file can have.") from None
        if not inside:
            raise DataError(f"{where}, which is not in {self._root}; images must be in the files or in that folder.")
        if not is_file:
            raise DataError(f"{where}, and there is no such file in {self._root}.")
        return full
