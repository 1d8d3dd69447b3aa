"""A partition in one file: to publish with a paper, to repeat a run, or to import from elsewhere.

A safetensors file: ``rows``, i64, the rows of the training list client by client; ``sizes``, i64, how many each client
holds; and two hashes in its metadata: ``keys`` is the SHA-256 of the list's lines (``sha256sum`` of the released file
gives the same), so that a partition of one list is not used on another; ``sha256`` covers that and the arrays.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from data.errors import DataError
from data.outputs import check_output
from data.partition.complete import problem_of
from data.partition.natural import NATURAL, natural
from data.partition.schemes import PARTITIONS, check_args, partition
from data.release import Split
from data.tensors import map_tensors
from data.user_cache import below_home

FORMAT = "clothing1m-fl partition 1"
SCHEMES = (*PARTITIONS, NATURAL, "file")  # of `deal`


def save_partition(path: Path, keys: np.ndarray, parts: Sequence[np.ndarray], about: Mapping[str, str]) -> str:
    """Write a partition.

    Args:
        path: Replaced if it exists.
        keys: (n,) bytes of the training list.
        parts: For each client, (m,) int64 rows of `keys`.
        about: What it was made from, for the record; stored as text.

    Returns:
        Its hash, in hex, also stored in the file.

    Raises:
        DataError: The parts are not complete and disjoint, or the file cannot be written.
    """
    check_output(path)
    rows = np.concatenate([np.asarray(part, np.int64) for part in parts])
    sizes = np.array([len(part) for part in parts], np.int64)
    of_keys = _hash_of_keys(keys)
    if problem := problem_of(rows, sizes, len(keys)):
        raise DataError(f"the partition for {path} {problem}; it must be complete and disjoint.")
    digest = _hash_of_all(of_keys, rows, sizes)
    metadata = {**about, "format": FORMAT, "keys": of_keys, "sha256": digest}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            (Path(folder) / "partition").write_bytes(save({"rows": rows, "sizes": sizes}, metadata))
            (Path(folder) / "partition").replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; its folder must exist and be writable.") from None
    return digest


def load_partition(path: Path, keys: np.ndarray, num_partitions: int) -> list[np.ndarray]:
    """Read a partition back.

    Args:
        path: As `save_partition` wrote it.
        keys: (n,) bytes of the training list that it is to be used on.
        num_partitions: Number of clients of the run.

    Returns:
        For each client, (m,) int64 rows of `keys`.

    Raises:
        DataError: The file is missing, damaged or not a partition, is not complete and disjoint, was made for another
            list, or has another number of clients.
    """
    try:
        metadata, arrays = map_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError("is not a partition")
        rows, sizes = arrays["rows"], arrays["sizes"]
        if metadata["keys"] != _hash_of_keys(keys):
            raise ValueError("was made for another list of images")
        if metadata["sha256"] != _hash_of_all(metadata["keys"], rows, sizes):
            raise ValueError("is damaged: its hash does not match")
        if problem := problem_of(rows, sizes, len(keys)):
            raise ValueError(problem)
        if len(sizes) != num_partitions:
            raise ValueError(f"has {len(sizes)} clients, not {num_partitions}")
    except KeyError:
        raise DataError(f"{path} is not a partition; `python -m data partition --out FILE` writes one.") from None
    except ValueError as error:
        raise DataError(
            f"{path} {error}; it must be a file of `python -m data partition --out FILE` for this list."
        ) from None
    return [np.array(part) for part in np.split(rows, np.cumsum(sizes)[:-1])]


def deal(split: Split, scheme: str, num_partitions: int, seed: int, /, **args: Any) -> list[np.ndarray]:
    """Parts of a list by one of `SCHEMES`: ``natural``, ``file`` with its argument `path`, or `data.partition.schemes`.

    Raises:
        DataError: What `partition`, `natural` or `load_partition` refuses.
    """
    if scheme in PARTITIONS:
        return partition(scheme, split.labels, num_partitions, seed, **args)
    check_scheme(scheme, args)
    if scheme == NATURAL:
        return natural(split.groups, len(split.keys), num_partitions, seed)
    return load_partition(below_home(args["path"]), split.keys, num_partitions)


def check_scheme(scheme: str, args: Mapping[str, Any]) -> None:
    """Check a scheme and its arguments as far as that is possible without images and clients.

    Raises:
        DataError: There is no such scheme, or it has no such arguments, or needs others.
    """
    if scheme in PARTITIONS:
        check_args(scheme, dict(args))
    elif scheme == NATURAL:
        for name in args:
            raise DataError(f"partition scheme '{NATURAL}' has no argument '{name.replace('_', '-')}'; it takes none.")
    elif scheme != "file":
        raise DataError(f"there is no partition scheme '{scheme}'; it must be one of {', '.join(SCHEMES)}.")
    elif args.keys() != {"path"} or not isinstance(args["path"], str):
        raise DataError("partition scheme 'file' needs the argument 'path', a string, and no other.")


def _hash_of_keys(keys: np.ndarray) -> str:
    return hashlib.sha256(b"\n".join(keys.tolist())).hexdigest()


def _hash_of_all(hash_of_keys: str, rows: np.ndarray, sizes: np.ndarray) -> str:
    seen = hashlib.sha256(hash_of_keys.encode())
    for array in (sizes, rows):
        seen.update(array.astype("<i8").tobytes())
    return seen.hexdigest()
