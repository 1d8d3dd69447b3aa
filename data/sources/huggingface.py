"""A dataset of the Hugging Face hub, or a folder of the parquet files that such datasets are made of.

One split becomes noisy train, others clean test and clean val. A name is looked up and prepared by the library
`datasets`, which writes parquet files into its own cache; what is in a folder needs neither the library nor a network.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.finding import SPLITS
from data.layout.groups import problem_of_group_names
from data.layout.key_files import MAX_CLASSES
from data.sources.hub_files import FLAGS, MISSING, Wanted, downloaded, files_of_lists
from data.sources.parquet import (
    CLASSES,
    STRUCT,
    Column,
    Shard,
    coded,
    columns_of,
    is_image,
    kind_of,
    open_shard,
    read_column,
    type_of,
)
from data.sources.parquet_images import Images
from data.sources.source import Listed, Source, numbered_keys
from data.text import shown

LOOKED_AT = 16  # images of a list, evenly spaced, by which datasets are told apart
NO_LABEL, NO_IMAGE = "no label", "no image"


def read_huggingface(name: str, wanted: Wanted) -> Source:
    """A dataset on the hub, or in a folder.

    Of clean lists, the true label is that of `Wanted.true_label` where a split has this column, else that of
    `Wanted.label`. Rows without a label or without an image are left out.

    Args:
        name: A folder, or a name such as ``owner/dataset``.
        wanted: What of it.

    Raises:
        DataError: There is no such dataset, split or column; files are damaged or differ; labels or images are not what
            they must be; or a package is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401 (of which all else here makes use)
    except ImportError:
        raise DataError(
            f"reading parquet files needs the package pyarrow, which `datasets` brings; {MISSING}."
        ) from None
    root = Path(name)
    if not os.path.isdir(root):  # noqa: PTH112 (which takes names that no file can have)
        root, wanted = downloaded(name, wanted), replace(wanted, config="")
    elif wanted.revision:
        raise DataError(f"--revision is {shown(wanted.revision)}, but {root} is a folder; it is for names on the hub.")
    shards = {
        split: [open_shard(path, root) for path in files] for split, files in files_of_lists(root, wanted).items()
    }
    for split, found in shards.items():
        if not sum(map(len, found)):
            raise DataError(f"{root} has no row in {FLAGS[split]}: {found[0].name}; an import needs some.")
    columns = _chosen(next(iter(shards.values()))[0], wanted)
    return _Reading(root, shards, columns).source()


def _chosen(shard: Shard, wanted: Wanted) -> Wanted:
    """With the columns of images and labels that were left out.

    Raises:
        DataError: None, or several, could be meant.
    """
    names = shard.schema.names
    image = wanted.image
    if not image:
        kinds = {one: is_image(type_of(shard, one)) for one in names if names.count(one) == 1}
        found = [one for one in kinds if kinds[one] == STRUCT] or [one for one in kinds if kinds[one]]
        image = _only(found, shard, "--image", "images")
    label = wanted.label
    if not label:
        taken = {image, wanted.true_label, wanted.group}
        kinds = {one: kind_of(shard, one)[0] for one in names if one not in taken and names.count(one) == 1}
        found = [one for one in kinds if kinds[one] == CLASSES] or [one for one in kinds if kinds[one]]
        label = _only(found, shard, "--label", "labels")
    return replace(wanted, image=image, label=label)


def _only(found: Sequence[str], shard: Shard, flag: str, what: str) -> str:
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} columns" if found else "no column"
    raise DataError(
        f"{shard.path} has {several} that could be the {what}; {flag} must name one of its columns,"
        f" {columns_of(shard)}."
    )


class _Reading:
    """One dataset whose files and columns are known."""

    def __init__(self, root: Path, shards: Mapping[str, list[Shard]], wanted: Wanted) -> None:
        self._root, self._shards, self._wanted = root, shards, wanted
        self._images = Images(root, [shard for found in shards.values() for shard in found], wanted.image)

    def source(self) -> Source:
        """The dataset."""
        labels = self._columns(self._wanted.label, "--label", "noisy_train" if self._wanted.true_label else "")
        true = self._columns(self._wanted.true_label, "--true-label", "noisy_train")
        groups = self._columns(self._wanted.group, "--group", next(iter(self._shards)))
        for name in self._shards:
            if name not in labels and name not in true:
                shard = self._shards[name][0]
                raise DataError(
                    f"{shard.path} has neither column {shown(self._wanted.label)} nor {shown(self._wanted.true_label)};"
                    f" its columns are {columns_of(shard)}."
                )
        both = {(kind, name): one for kind, of in (("given", labels), ("true", true)) for name, one in of.items()}
        classes, codes = coded(both, self._root, "a label")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise DataError(f"{self._root} has {len(classes):,} classes; it must have from 1 to {MAX_CLASSES:,}.")
        group_names, numbers = coded(groups, self._root, "a group")
        if problem := problem_of_group_names(group_names):
            raise DataError(f"{self._root} has a wrong name of a group, number {problem}")
        left_out: list[tuple[Path, str]] = []
        seen = hashlib.sha256(repr(classes).encode())
        listed = {name: self._listed(name, codes, numbers, left_out) for name in SPLITS if name in self._shards}
        for name, one in listed.items():
            seen.update(f"{name} {len(one.origins)}".encode() + one.true.tobytes() + one.noisy.tobytes())
            seen.update(self._looked_at(one.origins))
        splits, first = {}, 0
        for name, one in listed.items():
            splits[name] = replace(one, keys=_keys(f"huggingface {seen.hexdigest()}", one.origins, first))
            first += len(one.origins)
        return Source(self._root, classes, splits, self._images.encoded, left_out, group_names)

    def _columns(self, column: str, flag: str, needed: str) -> dict[str, Column]:
        """By list, a column where its files have one; `needed`, or every list if that is empty, must have it."""
        if not column:
            return {}
        return {
            name: read_column(shards, column, flag)
            for name, shards in self._shards.items()
            if name == needed or not needed or any(column in shard.schema.names for shard in shards)
        }

    def _listed(
        self,
        name: str,
        codes: Mapping[tuple[str, str], np.ndarray],
        groups: Mapping[str, np.ndarray],
        left_out: list[tuple[Path, str]],
    ) -> Listed:
        """One list, without keys, and without the rows that `left_out` gains."""
        shards = self._shards[name]
        origins = [f"{shard.name}:{row}" for shard in shards for row in range(len(shard))]
        unknown = np.full(len(origins), -1)
        given, known = (codes.get((kind, name), unknown) for kind in ("given", "true"))
        if name != "noisy_train" and ("true", name) not in codes:
            given, known = unknown, given
        needed = given if name == "noisy_train" else known
        empty = np.zeros(len(origins), bool)
        start = 0
        for shard in shards:
            empty[[start + row for row in self._images.missing(shard)]] = True
            start += len(shard)
        for rows, why in ((empty, NO_IMAGE), (~empty & (needed < 0), NO_LABEL)):
            left_out += [(self._root / origins[row], why) for row in np.flatnonzero(rows)]
        kept = np.flatnonzero(~empty & (needed >= 0))
        if not len(kept):
            why = "no image in" if empty.all() else "no label of"
            raise DataError(
                f"{self._root} has {why} any row of {shards[0].name}; {FLAGS[name]} must name another split, or be"
                " empty for none."
            )
        own = groups.get(name)
        return Listed([origins[row] for row in kept], (), known[kept], given[kept], None if own is None else own[kept])

    def _looked_at(self, origins: Sequence[str]) -> bytes:
        """A hash of a few images."""
        some = np.unique(np.linspace(0, len(origins) - 1, min(len(origins), LOOKED_AT)).astype(np.int64))
        seen = hashlib.sha256()
        for row in some.tolist():
            data = b""
            with contextlib.suppress(OSError):  # of a file that cannot be read, whoever copies it says so
                data = self._images.encoded(origins[row])
            seen.update(len(data).to_bytes(8, "little") + data)
        return seen.digest()


def _keys(kind: str, origins: Sequence[str], first: int) -> list[str]:
    """As from `numbered_keys`, but neighbours in a file are neighbours in the order of keys.

    Images are asked for in that order, and those that lie together are read together. It is the order of numbers modulo
    1000, so these are given out in it.
    """
    places = np.arange(first, first + len(origins))
    order = np.argsort(places % 1000, kind="stable")
    arranged = np.empty(len(origins), np.int64)
    arranged[order] = np.arange(len(origins))
    keys = numbered_keys(kind, [origins[row] for row in arranged.tolist()], first)
    return [keys[place] for place in order.tolist()]
