"""`python -m data`: check, pack or inspect a release, deal it to clients, draw a sample, or import photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from data.arguments import parse_pairs
from data.check import begin_check
from data.errors import DataError
from data.images.formats import needed_for, read_suffixes
from data.import_folder import Shares, import_folder
from data.next_run import run_line
from data.pack_writer import Packing, write_pack
from data.partition.file import deal, save_partition
from data.partition.schemes import PARTITIONS
from data.progress_bar import cpus, progress_bar
from data.release import TRAIN_SPLITS, open_release, training_split
from data.sample import SampleSize, draw_sample
from data.summary import as_table, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(
    help="Clothing1M on disk.",
    epilog="Example: python -m data sample --out ~/sample",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEFAULT = SampleSize()
Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist yet, or be empty.")]


@app.command(epilog="Example: python -m data sample --out ~/sample --train 1000 --image-size 64")
def sample(
    out: Out,
    train: Annotated[int, typer.Option(help="Noisy training images.")] = DEFAULT.train,
    clean_train: Annotated[int, typer.Option(help="Clean training images.")] = DEFAULT.clean_train,
    val: Annotated[int, typer.Option(help="Clean validation images.")] = DEFAULT.val,
    test: Annotated[int, typer.Option(help="Clean test images.")] = DEFAULT.test,
    image_size: Annotated[int, typer.Option(help="Shorter side in pixels.")] = DEFAULT.image_size,
    seed: Annotated[int, typer.Option(help="The same seed draws the same files.")] = DEFAULT.seed,
) -> None:
    """Draw a look-alike of Clothing1M: fourteen garments, 38 % wrong labels."""
    draw_sample(out, train=train, clean_train=clean_train, val=val, test=test, image_size=image_size, seed=seed)
    typer.echo(f"{out.resolve()}: {train} noisy train, {clean_train} clean train, {val} val, {test} test images.")


@app.command(name="import", epilog="Example: python -m data import ~/photos --out ~/release --noise-rate 0.2")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    out: Out,
    clean_train: Annotated[float, typer.Option(help="Share of each class for clean train.")] = 0.1,
    val: Annotated[float, typer.Option(help="Share for clean val.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share for clean test.")] = 0.2,
    noise_rate: Annotated[float, typer.Option(help="Share of wrong labels in noisy train.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Decides splits, keys and noise.")] = 1,
) -> None:
    """Turn your own images into the released layout.

    DIR is a folder that holds one folder of images per class.
    """
    done = import_folder(folder, out, Shares(clean_train, val, test), noise_rate, seed)
    typer.echo(
        f"{out.resolve()}: " + ", ".join(f"{count} {split}" for split, count in done.counts.items()) + " images."
    )
    if done.skipped:
        named = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in done.skipped.items())
        typer.echo(f"Left out: {named}; only {', '.join(sorted(read_suffixes()))} are read.", err=True)
        for suffix in filter(needed_for, done.skipped):
            typer.echo(f"To read {suffix} files: {needed_for(suffix)}.", err=True)
    for path, why in done.suspect.items():
        typer.echo(f"Imported, but its pixels may be damaged: {path} ({why}).", err=True)
    if line := run_line(out.resolve(), done.counts["noisy_train"]):
        typer.echo(f"To train on them, in the app's folder:\n{line}")
    else:
        typer.echo("These are too few to train on: two clients need at least two images each in noisy train.")


# What DIR is stands in each docstring: flwr needs a Typer that loses the help of arguments with Click 8.5.
Release_ = Annotated[Path, typer.Argument(metavar="DIR")]
Threads = Annotated[int, typer.Option(help="Images processed at a time; 0: one per processor.", min=0)]
Plot = Annotated[Path | None, typer.Option(help="Also save a picture to this .png, .svg or .pdf file.")]


@app.command(epilog="Example: python -m data show ~/clothing1M --plot noise.png")
def show(folder: Release_, plot: Plot = None) -> None:
    """Print splits, counts per class, and how often the two labels of an image agree.

    DIR is a folder in the released layout, or a pack.
    """
    summary = summarize(open_release(folder))
    typer.echo(as_table(summary))
    if plot:
        from data.plots import draw_matrix  # matplotlib takes a second to import

        if not summary.double_labelled:
            raise DataError(f"{folder} has no image with both labels, so there is no noise matrix for --plot to draw.")
        title = f"{summary.double_labelled:,} images with both labels: {summary.agreement:.1%} agree"
        figure = draw_matrix(summary.confusion, summary.class_names, title, rows="clean label", columns="noisy label")
        _save(figure, plot)


@app.command(epilog="Example: python -m data check ~/clothing1M --out findings.tsv")
def check(
    folder: Release_,
    out: Annotated[Path, typer.Option(help="Where to write all findings.")] = Path("findings.tsv"),
    threads: Threads = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count images whose pixels are suspect as problems.")
    ] = False,
) -> None:
    """Find whatever is missing, damaged or misplaced; exit code 1 if anything is.

    DIR is a folder in the released layout, or a pack.
    """
    started = begin_check(folder)
    started.findings.strict = strict
    typer.echo(f"{len(started.present):,} images found; reading each of them.")
    with progress_bar("images", len(started.present), "check") as advance:
        started.images(out.with_name(f"{out.name}.progress"), threads or cpus(), advance)
    for line in started.findings.summary():
        typer.echo(line)
    try:
        started.findings.write(out)
    except OSError as error:
        raise DataError(f"--out is {out}, which cannot be written: {error.strerror}.") from None
    problems, suspects = started.findings.num_problems, started.findings.num_suspects
    verdict = f"{problems:,} problems." if problems else "complete and sound."
    if suspects and not problems:
        verdict = f"complete, and all images can be decoded, but the pixels of {suspects:,} may be damaged."
    typer.echo(f"{folder}: {verdict} All findings: {out}")
    if problems:
        raise typer.Exit(1)


@app.command(epilog="Example: python -m data pack ~/clothing1M --out ~/clothing1M.pack --image-size 256")
def pack(
    folder: Release_,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    image_size: Annotated[int, typer.Option(help="Re-encode with this shorter side; 0: keep files as they are.")] = 0,
    decoded: Annotated[bool, typer.Option("--decoded", help="Store pixels of --image-size x --image-size.")] = False,
    threads: Threads = 0,
) -> None:
    """Put a release into one file; to resume after a stop, repeat the command.

    DIR is a folder in the released layout, or a pack.
    """
    release = open_release(folder)
    total = len(release.index.keys)
    with progress_bar("images", total, "pack") as advance:
        fresh = write_pack(release, out, Packing(image_size, decoded), threads or cpus(), advance)
    size = out.stat().st_size / 2**20
    typer.echo(f"{out.resolve()}: {total:,} images, {size:,.1f} MiB" + ("." if fresh else "; it already existed."))


@app.command(
    name="partition",
    epilog="Example: python -m data partition ~/clothing1M --clients 9 --partition shards --out sites.partition",
)
def partition_(
    folder: Release_,
    clients: Annotated[int, typer.Option(help="Number of clients.")],
    scheme: Annotated[str, typer.Option("--partition", help=f"One of {', '.join(PARTITIONS)}, file.")] = "iid",
    partition_args: Annotated[str, typer.Option(help='Parameters of the scheme: "alpha=0.3 min-size=64".')] = "",
    train_split: Annotated[str, typer.Option(help=f"Images to deal: one of {', '.join(TRAIN_SPLITS)}.")] = "noisy",
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Also write the partition to this file.")] = None,
    plot: Plot = None,
) -> None:
    """Show what each client of a run with these settings holds.

    DIR is a folder in the released layout, or a pack.
    """
    try:
        args = parse_pairs(partition_args)
    except ValueError as error:
        raise DataError(f"--partition-args is {partition_args!r}; it must be key=value pairs ({error}).") from None
    release = open_release(folder)
    split = training_split(release, train_split)
    labels = split.labels
    parts = deal(split, scheme, clients, seed, **args)
    classes = len(release.class_names)
    counts = np.stack([np.bincount(labels[part], minlength=classes) for part in parts])
    sizes = counts.sum(axis=1)
    present = (counts > 0).sum(axis=1)
    typer.echo(
        f"{clients} clients hold {sizes.sum():,} of {len(labels):,} images: {sizes.min():,} to {sizes.max():,} each,"
        f" median {int(np.median(sizes)):,}; {present.min()} to {present.max()} of {classes} classes each."
    )
    if out:
        about = {"scheme": scheme, "args": partition_args, "train-split": train_split, "seed": str(seed)}
        typer.echo(f"{out.resolve()}: sha256 {save_partition(out, split.keys, parts, about)}")
    if plot:
        from data.plots import draw_clients  # matplotlib takes a second to import

        title = f"{scheme} {partition_args}".strip() + f", seed {seed}: {clients} clients"
        _save(draw_clients(counts, release.class_names, title), plot)


def _save(figure: "Figure", path: Path) -> None:
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise DataError(f"--plot is {path}; it must end in .png, .svg or .pdf.")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise DataError(f"--plot is {path}, which cannot be written: {error.strerror}.") from None
    typer.echo(str(path.resolve()))


if __name__ == "__main__":
    try:
        app(prog_name="python -m data")
    except DataError as error:
        typer.echo(f"python -m data: {error}", err=True)
        raise SystemExit(1) from None
