"""Who a row is: a mark over all that decides its result, and the name of its folder."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from config.named import parse_args
from config.rules import is_absolute
from config.run_config import RunConfig
from data.pack_writer import Packing, identity_of
from data.release import Release, open_release
from data.sample import sample_folder
from data.stores.pack import PackStore
from experiments.plan import Row
from runs.run import PLACES

DIGITS = 12  # of a mark
LABEL_BYTES, SETTING_BYTES = 36, 30  # of a name, which then has at most 101
ARGS = ("partition-args", "method-args", "strategy-args")


class Contents:
    """Digests of what data folders and files hold; each is read once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of_data(self, data_dir: str) -> str:
        """Of class names, lists and labels, wherever they are; the drawn sample need not have been drawn.

        Raises:
            DataError: They cannot be read.
        """
        if not data_dir:
            return sample_folder().name
        if data_dir not in self._known:
            self._known[data_dir] = _digest_of_release(Path(data_dir).expanduser())
        return self._known[data_dir]

    def of_files(self, config: RunConfig) -> dict[str, str]:
        """By key, of the files that a config names: weights, a partition, a transition matrix."""
        return {key: self._of_file(path) for key, path in _files_in(config) if path.is_file()}

    def _of_file(self, path: Path) -> str:
        if str(path) not in self._known:
            with path.open("rb") as file:
                self._known[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[str(path)]


def mark_of(config: RunConfig, clients: int, contents: Contents, code: str) -> str:
    """`DIGITS` hex digits over all that decides a run's result.

    Args:
        config: Resolved.
        clients: How many there are.
        contents: Where digests are kept.
        code: Fingerprint of the code.

    Raises:
        DataError: The data cannot be read.
    """
    flat = {key: value for key, value in config.to_flat().items() if key not in PLACES | {"data-dir", "num-clients"}}
    if config.partition == "file":
        del flat["partition-args"]  # the file's place alone
    facts = [flat, clients, contents.of_data(config.data_dir), contents.of_files(config), code]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:DIGITS]


def name_of(row: Row) -> str:
    """The name of a row's folder: label, setting, seed and mark, which makes it unique."""
    words = [_slug(row.label, LABEL_BYTES), _slug(row.setting, SETTING_BYTES), f"s{row.seed}", row.mark]
    return "-".join(word for word in words if word)


def _slug(text: str, most: int) -> str:
    """A text as a part of a folder's name, of at most `most` bytes."""
    plain = re.sub(r"[^\w.]+", "-", text).encode()[:most].decode(errors="ignore")
    return plain.strip("-.")


def _digest_of_release(root: Path) -> str:
    release = open_release(root)
    index = release.index
    facts = [release.class_names, index.counts, _changed_images(release)]
    digest = hashlib.sha256(json.dumps(facts).encode() + b"\n" + b"\n".join(index.keys.tolist()))
    for labels in (index.noisy, index.clean, index.true):
        digest.update(np.ascontiguousarray(labels, dtype="<i2").tobytes())
    if index.group is not None:  # partition='natural' deals by them
        digest.update(np.ascontiguousarray(index.group, dtype="<i4").tobytes())
    return digest.hexdigest()


def _changed_images(release: Release) -> str:
    """What tells a pack whose images are not the files that it was made from; empty for all others."""
    if not isinstance(release.store, PackStore) or release.store.identity == identity_of(release, Packing()).hex():
        return ""
    return release.store.identity


def _files_in(config: RunConfig) -> Iterator[tuple[str, Path]]:
    flat = config.to_flat()
    yield "pretrained", Path(config.pretrained).expanduser()
    for key in ARGS:
        for name, value in parse_args(key, str(flat[key])).items():
            if isinstance(value, str) and is_absolute(value):
                yield f"{key} {name}", Path(value).expanduser()
