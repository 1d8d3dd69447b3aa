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
from data.sources.cifar import Wanted, read_cifar, remark_on_size
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from data.sources.folder import Shares, read_folder
from data.sources.human_labels import SETS
from data.sources.source import Source
from data.sources.writing import LEFT_OUT, PACK, write_source
from data.text import one_line, shown


class _Kinds(TyperGroup):
    """Takes a folder without a kind for photos of people's own, as versions did that knew nothing else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            if not any(os.sep in one or os.path.lexists(one) for one in args):
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
SHARES = Shares()


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
    import_(read_folder(source, Shares(**shares, only=only), noise_rate, seed), out)


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
    _import_cifar(CIFAR10, source, out, human_labels, labels, Wanted(False, clean_train, val, seed))


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
    _import_cifar(CIFAR100, source, out, human_labels, labels, Wanted(coarse, clean_train, val, seed))


def _import_cifar(kind: Kind, source: Path, out: Path, human_labels: Path | None, labels: str, wanted: Wanted) -> None:
    if labels and not human_labels:
        raise DataError("--labels needs --human-labels, the file that has them.")
    if human_labels:
        wanted = replace(wanted, human_labels=(human_labels, labels))
    read = read_cifar(source, kind, wanted)
    if remark := remark_on_size(read, kind):
        typer.echo(remark, err=True)
    import_(read, out)
