"""`python -m data import KIND`: photos of people's own, and what all kinds have in common.

`data.import_published` has the commands of published datasets.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from data.errors import DataError
from data.next_run import image_size_for, run_line
from data.options import release_to_write
from data.photo_folders import in_words
from data.progress_bar import progress_bar
from data.release import open_release
from data.sources.folder import Shares, read_folder
from data.sources.groups import with_groups
from data.sources.source import Source
from data.sources.splits import read_splits
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


def note(text: str) -> None:
    """Something to know before a long import, on the error stream; nothing if it is empty."""
    if text:
        typer.echo(f"Note: {text}", err=True)


def import_(source: Source, out: Path) -> None:
    """Write a dataset, and say what was done and how to train on it."""
    done = write_source(source, out, lambda what, total: progress_bar(what, total, "import"))
    where = out.resolve()
    counts = ", ".join(f"{count:,} {split}" for split, count in done.counts.items())
    typer.echo(f"{where}: {counts} images" + ("." if done.fresh else "; it already existed."))
    if done.left_out:
        count = len(done.left_out)
        files = f"{count:,} file{'s' * (count > 1)}"
        names = f"{where}.{LEFT_OUT}" if out.suffix == PACK else where / LEFT_OUT
        typer.echo(f"Left out: {files} ({in_words(done.left_out)}), named in {names}", err=True)
    for path, why in done.suspect.items():
        typer.echo(f"Imported, but its pixels may be damaged: {path} ({why}).", err=True)
    if "noisy_train" not in done.counts:
        return
    lists = [name for name in done.counts if done.counts[name]]
    size = image_size_for(open_release(where), "noisy_train") if "noisy_train" in lists else None
    if line := run_line(where, done.counts["noisy_train"], lists, size):
        typer.echo(f"To train on them, in the app's folder:\n{line}")
    else:
        typer.echo("These are too few to train on: two clients need at least two images each in noisy train.")
