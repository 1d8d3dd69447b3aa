"""Which parquet files of a dataset on the Hugging Face hub, or of a folder, belong to which split."""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import DataError
from data.text import one_line, shown

SUFFIX = ".parquet"
VALIDATION = ("validation", "valid", "val", "dev")  # as splits for validation are called
MISSING = "install it: `pip install datasets`"
FLAGS = {"noisy_train": "--train-split", "clean_val": "--val-split", "clean_test": "--test-split"}
_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")  # the hub takes no longer ones
_NUMBER = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?$")


@dataclass(frozen=True)
class Wanted:
    """What is imported.

    Attributes:
        image: The column of images; empty: the only one.
        label: The column of labels that training sees, and of the true ones of clean lists if there is no other;
            empty: the only one.
        true_label: The column of true labels; empty: nobody knows them in noisy train.
        group: The column of whom or where an image comes from; empty: unknown.
        train: The split that becomes noisy train; empty: none.
        test: The one that becomes clean test; empty: none; None: ``test``, if there is one.
        val: The one that becomes clean val; empty: none; None: one of `VALIDATION`, if there is one.
        config: Which configuration of the dataset; empty: the only one.
        revision: Branch, tag or commit on the hub; empty: its newest.
    """

    image: str = ""
    label: str = ""
    true_label: str = ""
    group: str = ""
    train: str = "train"
    test: str | None = None
    val: str | None = None
    config: str = ""
    revision: str = ""


def split_of(path: PurePosixPath) -> str:
    """The split that a file belongs to by its name: ``train-00000-of-00002``, ``cifar10-train``, ``train/0000``."""
    stem = _NUMBER.sub("", path.name.removesuffix(SUFFIX)).rpartition("-")[2]
    return stem if stem[:1].isalpha() and stem != "part" else path.parent.name


def files_of_lists(root: Path, wanted: Wanted) -> dict[str, list[Path]]:
    """For each list that is written, its files."""
    files = _parquet_files(root)
    if wanted.config:
        files = [path for path in files if wanted.config in path.relative_to(root).parts[:-1]]
        if not files:
            raise DataError(f"{root} has no folder {shown(wanted.config)} with parquet files; --config must name one.")
    named: dict[str, list[Path]] = {}
    for path in files:
        named.setdefault(split_of(PurePosixPath(path.relative_to(root).as_posix())), []).append(path)
    flags = {
        "noisy_train": wanted.train,
        "clean_val": next((one for one in VALIDATION if one in named), "") if wanted.val is None else wanted.val,
        "clean_test": ("test" if "test" in named else "") if wanted.test is None else wanted.test,
    }
    given = [split for split in flags.values() if split]
    if len(set(given)) < len(given):
        raise DataError(
            f"the split {shown(next(one for one in given if given.count(one) > 1))} is given for two lists."
        )
    if not given:
        raise DataError("--train-split, --val-split and --test-split are all empty; at least one must name a split.")
    found = {}
    for name, split in flags.items():
        if split:
            found[name] = named.get(split) or [path for path in files if split in path.relative_to(root).parts[:-1]]
            if not found[name]:
                raise DataError(
                    f"{root} has no split {shown(split)}; {FLAGS[name]} must name one of its splits,"
                    f" {one_line(', '.join(sorted(named)))}, or be empty for none."
                )
            if len(folders := sorted({str(path.parent) for path in found[name]})) > 1:
                raise DataError(
                    f"{root} has files of split {shown(split)} in {folders[0]} and {folders[1]}; name the folder of one"
                    " with --config."
                )
    return found


def _parquet_files(root: Path) -> list[Path]:
    """All parquet files below a folder but hidden ones, in the order of their paths."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        files += [Path(folder, one) for one in names if one.lower().endswith(SUFFIX) and not one.startswith(".")]
    for path in files:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} is no file; it must be a parquet file.")
    if not files:
        raise DataError(f"{root} holds no file that ends in {SUFFIX}; it must be a folder of parquet files.")
    return sorted(files)


def downloaded(name: str, wanted: Wanted) -> Path:
    """The folder of parquet files that `datasets` makes of a dataset on the hub, once."""
    if os.path.lexists(name):
        raise DataError(f"{shown(name)} is a file; it must be a folder of parquet files, or a name on the hub.")
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise DataError(f"{shown(name)} is no folder, and no name on the Hugging Face hub, such as owner/dataset.")
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name} is no folder; a name on the hub needs the package datasets; {MISSING}.") from None
    try:
        builder = datasets.load_dataset_builder(name, wanted.config or None, revision=wanted.revision or None)
        folder = Path(f"{builder.cache_dir}-parquet")
        builder.download_and_prepare(str(folder), file_format="parquet")
    except Exception as error:  # of a network, a disk or a library
        why = one_line(f"{type(error).__name__}: {error}")
        raise DataError(
            f"{name} is no folder, and cannot be had from the Hugging Face hub ({why}); check the name, --config and"
            " --revision, or give a folder of its parquet files."
        ) from None
    return folder
