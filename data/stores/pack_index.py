"""One check of a pack's index before anything of it is used.

A checksum shows that nothing has changed since the pack was written, not that who wrote it knew how, or meant well.
"""

import json
from collections.abc import Mapping

import numpy as np

from data.layout.finding import LIST_FILES, SPLITS, WRONG
from data.layout.groups import names_from_text
from data.layout.key_files import MAX_CLASSES, MAX_KEY_BYTES, PREFIX, problem_of_names, show
from data.tensors import ALIGNMENT

BLOCK = 65_536  # keys looked at together: keeps memory small
BLANK = ord(" ")
# Dtype and number of sides; `images` and `keys` have their lengths checked too.
ARRAYS = {
    "counts": ("<i8", 1), "checksums": ("<u4", 1), "order": ("<i4", 1), "noisy": ("<i2", 1), "clean": ("<i2", 1),
    "true": ("<i2", 1), "keys": ("u1", 2),
}  # fmt: skip


def problem_of(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """What makes no sense in a pack, as the end of a sentence about it; empty if nothing does."""
    try:
        names = json.loads(metadata["classes"])
        named = isinstance(names, list) and all(isinstance(name, str) for name in names) and "identity" in metadata
    except (KeyError, ValueError, RecursionError):
        named = False
    if not named or not 1 <= len(names) <= MAX_CLASSES:
        return f"has no list of classes, from 1 to {MAX_CLASSES:,} names"
    if problem := problem_of_names(names):
        return f"has a wrong name of a class, number {problem.rstrip('.')}"
    try:
        groups = names_from_text(metadata["groups"]) if "groups" in metadata else ()
    except ValueError:
        return "has no list of names of its groups, each of them once"
    return (
        _of_shapes(arrays, bool(groups))
        or _of_labels(arrays, len(names))
        or _of_groups(arrays, len(groups))
        or _of_offsets(arrays)
        or _of_keys(arrays["keys"])
        or _of_order(arrays)
    )


def _of_shapes(arrays: Mapping[str, np.ndarray], grouped: bool) -> str:
    pixels = "images" in arrays and arrays["images"].ndim == 4
    known = {**ARRAYS, **({"group": ("<i4", 1)} if grouped else {})}
    wanted = {**known, "images": ("u1", 4 if pixels else 1), **({} if pixels else {"offsets": ("<i8", 1)})}
    if arrays.keys() != wanted.keys():
        return f"has the arrays {', '.join(sorted(arrays))}, not {', '.join(sorted(wanted))}"
    for name, (dtype, sides) in wanted.items():
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != sides:
            return f"has '{name}' as {arrays[name].dtype} of shape {arrays[name].shape}"
    counts, keys = arrays["counts"].tolist(), arrays["keys"]
    if len(counts) != len(SPLITS) or min(counts) < 0 or sum(counts) != len(keys):
        return f"has {len(keys):,} images, and lists of {', '.join(map(str, counts[:8]))}"
    lengths = {
        "checksums": 0,
        "order": 0,
        "noisy": 0,
        "clean": 0,
        "true": 0,
        **({"group": 0} if grouped else {}),
        **({"images": 0} if pixels else {"offsets": 1}),
    }
    for name, more in lengths.items():
        if len(arrays[name]) != len(keys) + more:
            return f"has '{name}' for {len(arrays[name]) - more:,} of {len(keys):,} images"
    if not 1 <= keys.shape[1] <= MAX_KEY_BYTES:
        return f"has keys of {keys.shape[1]} bytes, not of 1 to {MAX_KEY_BYTES}"
    if pixels and (len({*arrays["images"].shape[1:3]}) > 1 or arrays["images"].shape[3] != 3):
        return f"has images of shape {arrays['images'].shape[1:]}, not of square pixels in three colours"
    return ""


def _of_labels(arrays: Mapping[str, np.ndarray], classes: int) -> str:
    for name in ("noisy", "clean", "true"):
        labels = arrays[name]
        least = WRONG if name == "true" else -1
        if len(labels) and not (labels.min() >= least and labels.max() < classes):
            return f"has labels in '{name}' from {labels.min()} to {labels.max()}, and {classes} classes"
    ends = np.cumsum(arrays["counts"])
    for split, start, end in zip(SPLITS, ends - arrays["counts"], ends, strict=True):
        labels = arrays["noisy" if split == "noisy_train" else "clean"][start:end]
        if (labels < 0).any():
            return f"has images without a label in {LIST_FILES[split]}"
        if split != "noisy_train" and (arrays["true"][start:end] == WRONG).any():
            return (
                f"has images in {LIST_FILES[split]} whose label is known to be wrong, which only noisy train can have"
            )
    return ""


def _of_groups(arrays: Mapping[str, np.ndarray], groups: int) -> str:
    if "group" in arrays and len(numbers := arrays["group"]) and not (numbers.min() >= -1 and numbers.max() < groups):
        return f"has groups from {numbers.min()} to {numbers.max()}, and {groups} names of groups"
    return ""


def _of_offsets(arrays: Mapping[str, np.ndarray]) -> str:
    """Files lie end to end, in their order, and what follows the last one fills up a multiple of `ALIGNMENT`."""
    if "offsets" not in arrays:
        return ""
    offsets, size = arrays["offsets"], len(arrays["images"])
    if offsets[0] or (offsets[1:] < offsets[:-1]).any() or not size - ALIGNMENT < offsets[-1] <= size:
        return f"has images that do not lie end to end in its {size:,} bytes"
    return ""


def _of_keys(table: np.ndarray) -> str:
    """Keys are as `data.layout.key_files` reads them, and padded with zeros at their ends alone."""
    if table.shape[1] <= len(PREFIX):
        return f"has keys of {table.shape[1]} bytes, too short for {show(PREFIX)}"
    prefix = np.frombuffer(PREFIX, np.uint8)
    for start in range(0, len(table), BLOCK):
        keys = table[start : start + BLOCK]
        raw = keys.tobytes()  # a key that climbs cannot hide between two: each begins with the prefix
        blank = keys <= BLANK
        begins = bool((keys[:, : len(prefix)] == prefix).all()) and not blank[:, len(prefix)].any()
        ends = not (blank[:, :-1] > blank[:, 1:]).any() and not keys[blank].any()
        if not (begins and ends) or b"//" in raw or b"/.." in raw:
            return f"has keys that are not {show(PREFIX)}, a name without blanks, '//' and '/..', and zeros"
    return ""


def _of_order(arrays: Mapping[str, np.ndarray]) -> str:
    """`order` sorts the keys, each of which is at most once in a list."""
    order, table = arrays["order"], arrays["keys"]
    if not len(order):
        return ""
    if order.min() < 0 or order.max() >= len(order):
        return f"has an order with rows from {order.min()} to {order.max()}, for {len(order):,} images"
    keys = table.view(f"S{table.shape[1]}")[:, 0][order]
    odd = np.flatnonzero(~(keys[1:] > keys[:-1]))  # in the release there are none
    lists = np.repeat(np.arange(len(SPLITS)), arrays["counts"])[order]
    if (keys[odd + 1] != keys[odd]).any() or (lists[odd + 1] <= lists[odd]).any():
        return "has keys that are not in order, or a key twice in a list"
    return ""
