"""`python -m data import KIND`: a command for each kind of dataset."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from data.errors import DataError
from data.next_run import run_line
from data.options import release_to_write
from data.photo_folders import in_words
from data.progress_bar import progress_bar
from data.sources.animal10n import ANIMALS, read_animal10n
from data.sources.cifar import Options, read_cifar, remark_on_size
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from data.sources.folder import Shares, read_folder
from data.sources.food101n import FOOD_TESTS, read_food101n
from data.sources.groups import with_groups
from data.sources.hub_files import Wanted
from data.sources.huggingface import read_huggingface
from data.sources.human_labels import SETS
from data.sources.lists import other_counts
from data.sources.source import Source
from data.sources.splits import read_splits
from data.sources.webvision import MINI, MINI_IMAGES, read_webvision
from data.sources.writing import LEFT_OUT, PACK, write_source
from data.text import one_line, shown


class _Kinds(TyperGroup):
    """Takes a folder without a kind for photos of people's own, as versions did that knew nothing else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            if not (args[0].startswith("-") or os.sep in args[0] or os.path.lexists(args[0])):
                raise DataError(
                    f"{shown(args[0])} is no kind of dataset; it must be one of {', '.join(self.commands)}."
                )
            args = ["folder", *args]
        return super().parse_args(ctx, args)


importing = typer.Typer(
    cls=_Kinds,
    help="Turn a dataset, or your own photos, into a release: a folder in the released layout, or a pack.",
    epilog="Example: python -m data import folder ~/photos --out ~/release",
    no_args_is_help=True,
)
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help=f"Folder to write, which must not exist yet or be empty; or a pack to write, which ends in {PACK}.",
        callback=release_to_write,
    ),
]
Source_ = Annotated[Path, typer.Argument(metavar="DIR")]
Groups = Annotated[
    Path | None,
    typer.Option(
        help="Text file that says whom or where each image comes from: its path in DIR, a tab, the name of a group."
    ),
]
SHARES = Shares()
WANTED = Wanted()


@importing.command(epilog="Example: python -m data import folder ~/photos --out ~/release --noise-rate 0.2")
def folder(
    source: Source_,
    out: Out,
    clean_train: Annotated[
        float | None, typer.Option(help="Share of each class for clean train.", show_default=f"{SHARES.clean_train}")
    ] = None,
    val: Annotated[float | None, typer.Option(help="Share for clean val.", show_default=f"{SHARES.val}")] = None,
    test: Annotated[float | None, typer.Option(help="Share for clean test.", show_default=f"{SHARES.test}")] = None,
    only: Annotated[
        str,
        typer.Option(help="Put all images into this list: noisy_train for a site, clean_test for a server's tests."),
    ] = "",
    noise_rate: Annotated[float, typer.Option(help="Share of wrong labels in noisy train.")] = 0.0,
    groups: Groups = None,
    seed: Annotated[int, typer.Option(help="Decides splits, keys and noise.")] = 1,
) -> None:
    """Your own photos, in one folder per class.

    DIR is a folder that holds one folder of images per class.
    """
    given = {"clean_train": clean_train, "val": val, "test": test}
    shares = {name: share for name, share in given.items() if share is not None}
    if only and shares:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in shares)
        raise DataError(f"--only puts all images into {one_line(only)}; leave out {flags}, or --only.")
    import_(with_groups(read_folder(source, Shares(**shares, only=only), noise_rate, seed), groups), out)


@importing.command(
    epilog="Example: python -m data import huggingface owner/dataset --out ~/release --label noisy --true-label label"
)
def huggingface(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_DIR")],
    out: Out,
    image: Annotated[str, typer.Option(help="Column of the images.", show_default="the only one")] = "",
    label: Annotated[str, typer.Option(help="Column of the labels to train on.", show_default="the only one")] = "",
    true_label: Annotated[
        str, typer.Option(help="Column of the true labels, for scores and clean lists.", show_default="none")
    ] = "",
    group: Annotated[str, typer.Option(help="Column of whom or where an image comes from.", show_default="none")] = "",
    train_split: Annotated[str, typer.Option(help="Split for noisy train; empty: none.")] = WANTED.train,
    test_split: Annotated[
        str | None, typer.Option(help="Split for clean test; empty: none.", show_default="test, if there is one")
    ] = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split for clean val; empty: none.", show_default="validation, if there is one")
    ] = None,
    config: Annotated[
        str, typer.Option(help="Configuration of the dataset; in a folder, the folder of its files.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub.", show_default="the newest")] = "",
) -> None:
    """A dataset of the Hugging Face hub, or a folder of its parquet files.

    NAME_OR_DIR is a name on the hub, such as owner/dataset, which needs `pip install datasets`; or a folder.
    """
    wanted = Wanted(image, label, true_label, group, train_split, test_split, val_split, config, revision)
    import_(read_huggingface(name, wanted), out)


@importing.command(epilog="Example: python -m data import splits ~/photos --out ~/release")
def splits(
    source: Source_,
    out: Out,
    noisy_train: Annotated[
        Path | None, typer.Option(help="Folder in DIR, or an absolute path, instead of noisy_train.")
    ] = None,
    clean_train: Annotated[Path | None, typer.Option(help="Likewise of clean train.")] = None,
    val: Annotated[Path | None, typer.Option(help="Likewise of clean val.")] = None,
    test: Annotated[Path | None, typer.Option(help="Likewise of clean test.")] = None,
    groups: Groups = None,
) -> None:
    """Your own photos, divided into lists by you.

    DIR is a folder that holds noisy_train and any of clean_train, clean_val and clean_test, with one folder per class
    in each. With any of the flags, only folders that flags name are read.
    """
    given = {"noisy_train": noisy_train, "clean_train": clean_train, "clean_val": val, "clean_test": test}
    found = read_splits(source, {name: path for name, path in given.items() if path is not None})
    import_(with_groups(found, groups), out)


@importing.command(epilog="Example: python -m data import animal10n ~/raw_image_ver --out ~/animal10n")
def animal10n(source: Source_, out: Out) -> None:
    """ANIMAL-10N: ten animals, labels given by people.

    DIR is a folder that holds training and testing.
    """
    found = read_animal10n(source)
    _note(other_counts(found, "ANIMAL-10N", ANIMALS))
    import_(found, out)


@importing.command(
    epilog="Example: python -m data import food101n ~/Food-101N_release --food101 ~/food-101 --out ~/food101n.pack"
)
def food101n(
    source: Source_,
    out: Out,
    food101: Annotated[
        Path | None, typer.Option(help="Folder of Food-101, whose test images become clean test.")
    ] = None,
    clean_train: Annotated[
        bool, typer.Option("--clean-train", help="Move verified training images with right labels into clean train.")
    ] = False,
) -> None:
    """Food-101N: food as a search engine finds it, with verified labels.

    DIR is a folder that holds images and meta.
    """
    found = read_food101n(source, food101, clean_train)
    if food101:
        _note(other_counts(found, "Food-101", FOOD_TESTS))
    else:
        _note("There is no clean test: Food-101N's is that of Food-101, whose folder --food101 names.")
    import_(found, out)


@importing.command(epilog="Example: python -m data import webvision ~/webvision --classes 50 --out ~/webvision.pack")
def webvision(
    source: Source_,
    out: Out,
    classes: Annotated[
        int | None, typer.Option(help="How many classes, the first ones: 50 for mini WebVision.", show_default="all")
    ] = None,
    flickr: Annotated[bool, typer.Option("--flickr", help="Add the images from Flickr to those from Google.")] = False,
) -> None:
    """WebVision 1.0: ImageNet's classes as the web shows them.

    DIR is a folder that holds info, google and val_images_256.
    """
    found = read_webvision(source, classes, flickr)
    if classes == MINI and not flickr:
        _note(other_counts(found, "mini WebVision", MINI_IMAGES))
    import_(found, out)


def _note(text: str) -> None:
    if text:
        typer.echo(text, err=True)


def import_(source: Source, out: Path) -> None:
    """Write a dataset, and say what was done and how to train on it."""
    done = write_source(source, out, lambda what, total: progress_bar(what, total, "import"))
    where = out.resolve()
    typer.echo(f"{where}: " + ", ".join(f"{count} {split}" for split, count in done.counts.items()) + " images.")
    if done.left_out:
        count = len(done.left_out)
        files = f"{count:,} file{'s' * (count > 1)}"
        names = f"{where}.{LEFT_OUT}" if out.suffix == PACK else where / LEFT_OUT
        typer.echo(f"Left out: {files} ({in_words(done.left_out)}), named in {names}", err=True)
    for path, why in done.suspect.items():
        typer.echo(f"Imported, but its pixels may be damaged: {path} ({why}).", err=True)
    if "noisy_train" not in done.counts:
        return
    if line := run_line(where, done.counts["noisy_train"], [name for name in done.counts if done.counts[name]]):
        typer.echo(f"To train on them, in the app's folder:\n{line}")
    else:
        typer.echo("These are too few to train on: two clients need at least two images each in noisy train.")


HumanLabels = Annotated[
    Path | None, typer.Option(help="The authors' file of labels that people gave, such as CIFAR-10_human.pt.")
]
CleanTrain = Annotated[int, typer.Option(help="How many training images become clean train.")]
Val = Annotated[int, typer.Option(help="How many training images become clean val.")]
Draw = Annotated[int, typer.Option("--seed", help="Decides which images the clean lists get.")]


@importing.command(epilog="Example: python -m data import cifar10 ~/cifar-10-python.tar.gz --out ~/cifar10.pack")
def cifar10(
    source: Source_,
    out: Out,
    human_labels: HumanLabels = None,
    labels: Annotated[str, typer.Option(help=f"Which of them noisy train has: {', '.join(SETS['cifar10'])}.")] = "",
    clean_train: CleanTrain = 0,
    val: Val = 0,
    seed: Draw = 1,
) -> None:
    """CIFAR-10, with its own labels or those of CIFAR-10N.

    DIR is the folder cifar-10-batches-py or cifar-10-batches-bin, the folder above it, or the .tar.gz around either.
    """
    _import_cifar(CIFAR10, source, out, human_labels, labels, Options(False, clean_train, val, seed))


@importing.command(epilog="Example: python -m data import cifar100 ~/cifar-100-python.tar.gz --out ~/cifar100.pack")
def cifar100(
    source: Source_,
    out: Out,
    human_labels: HumanLabels = None,
    labels: Annotated[str, typer.Option(help=f"Which of them noisy train has: {', '.join(SETS['cifar100'])}.")] = "",
    coarse: Annotated[bool, typer.Option("--coarse", help="Labels are the 20 superclasses.")] = False,
    clean_train: CleanTrain = 0,
    val: Val = 0,
    seed: Draw = 1,
) -> None:
    """CIFAR-100, with its own labels or those of CIFAR-100N.

    DIR is the folder cifar-100-python or cifar-100-binary, the folder above it, or the .tar.gz around either.
    """
    _import_cifar(CIFAR100, source, out, human_labels, labels, Options(coarse, clean_train, val, seed))


def _import_cifar(kind: Kind, source: Path, out: Path, human_labels: Path | None, labels: str, wanted: Options) -> None:
    if labels and not human_labels:
        raise DataError("--labels needs --human-labels, the file that has them.")
    if human_labels:
        wanted = replace(wanted, human_labels=(human_labels, labels))
    read = read_cifar(source, kind, wanted)
    if remark := remark_on_size(read, kind):
        typer.echo(remark, err=True)
    import_(read, out)
