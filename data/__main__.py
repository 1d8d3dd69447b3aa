"""`python -m data`: check, pack or inspect a release, deal it to clients, draw a sample, or import photos."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from data.arguments import parse_pairs
from data.check import begin_check
from data.commands import run_command_line, several_commands
from data.errors import DataError
from data.import_published import importing  # with the commands of both modules
from data.match import match_names
from data.next_run import SMALLEST
from data.noise_text import noise_text
from data.options import file_in_new_folders, file_to_write, folder_to_write, picture_to_write
from data.pack_writer import Packing, write_pack
from data.partition.file import SCHEMES, deal, save_partition
from data.progress_bar import cpus, progress_bar
from data.release import TRAIN_SPLITS, Release, open_release, training_split
from data.sample import SampleSize, draw_sample
from data.summary import as_table, summarize
from data.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = several_commands("Clothing1M on disk.", "python -m data sample --out ~/sample")
app.add_typer(importing, name="import")
DEFAULT = SampleSize()
MOST_IMAGES = 100_000_000
Out = Annotated[
    Path,
    typer.Option("--out", help="Folder to write; it must not exist yet, or be empty.", callback=folder_to_write),
]


@app.command(epilog="Example: python -m data sample --out ~/sample --train 1000 --image-size 64")
def sample(
    out: Out,
    train: Annotated[int, typer.Option(help="Noisy training images.", max=MOST_IMAGES)] = DEFAULT.train,
    clean_train: Annotated[int, typer.Option(help="Clean training images.", max=MOST_IMAGES)] = DEFAULT.clean_train,
    val: Annotated[int, typer.Option(help="Clean validation images.", max=MOST_IMAGES)] = DEFAULT.val,
    test: Annotated[int, typer.Option(help="Clean test images.", max=MOST_IMAGES)] = DEFAULT.test,
    image_size: Annotated[int, typer.Option(help="Shorter side in pixels.")] = DEFAULT.image_size,
    seed: Annotated[int, typer.Option(help="The same seed draws the same files.")] = DEFAULT.seed,
) -> None:
    """Draw a look-alike of Clothing1M: fourteen garments, 38 % wrong labels."""
    draw_sample(out, train=train, clean_train=clean_train, val=val, test=test, image_size=image_size, seed=seed)
    typer.echo(f"{out.resolve()}: {train} noisy train, {clean_train} clean train, {val} val, {test} test images.")


@app.command(epilog="Example: python -m data match ~/clothing1M --out ~/clothing1M-matched")
def match(folder: Annotated[Path, typer.Argument(metavar="DIR")], out: Out) -> None:
    """Link each key to the file that has its name, whatever its case and suffix.

    DIR is a folder in the released layout whose files end in .JPG or .png where their keys end in .jpg.
    """
    done = match_names(folder, out)
    typer.echo(f"{out.resolve()}: {done.images:,} links into {folder}, {done.renamed:,} of them to another name.")


# What DIR is stands in each docstring: flwr needs a Typer that loses the help of arguments with Click 8.5.
Release_ = Annotated[Path, typer.Argument(metavar="DIR")]
Threads = Annotated[int, typer.Option(help="Images processed at a time; 0: one per processor.", min=0, max=1024)]
Plot = Annotated[
    Path | None, typer.Option(help="Also save a picture to this .png, .svg or .pdf file.", callback=picture_to_write)
]


@app.command(epilog="Example: python -m data show ~/clothing1M --plot noise.png")
def show(
    folder: Release_,
    plot: Plot = None,
    normalization: Annotated[
        bool, typer.Option("--normalization", help="Print the settings that normalise by these training images.")
    ] = False,
    image_size: Annotated[
        int,
        typer.Option(help="Of --normalization: the run's image-size; 0: that of a pack of pixels.", min=0, max=1024),
    ] = 0,
    train_split: Annotated[str, typer.Option(help=f"Of --normalization: {' or '.join(TRAIN_SPLITS)}.")] = "noisy",
    threads: Threads = 0,
) -> None:
    """Print splits, counts per class, how often two labels of an image agree, and the noise of noisy train.

    With --normalization print mean and deviation of each colour channel instead, as settings of a run.

    DIR is a folder in the released layout, or a pack.
    """
    release = open_release(folder)
    if normalization:
        if plot:
            raise DataError("--plot and --normalization are given; it must be one of them.")
        _show_normalization(release, image_size, train_split, threads or cpus())
        return
    if image_size or train_split != "noisy":
        raise DataError("--image-size or --train-split is given without --normalization, which alone needs them.")
    summary = summarize(release)
    typer.echo(as_table(summary))
    if noise := noise_text(summary):
        typer.echo(noise)
    if plot:
        pairs, rows, which = summary.double_labelled, "clean label", "with both labels"
        if not len(pairs):
            pairs, rows, which = summary.drawn, "true label", "of noisy train with a known true label"
        if not len(pairs):
            raise DataError(
                f"{folder} has no image with both labels, or with a known true one, so there is no noise matrix for"
                " --plot to draw."
            )
        title = f"{len(pairs):,} images {which}: {pairs.agreement:.1%} agree"
        names = summary.class_names
        _draw(plot, lambda plots: plots.draw_matrix(pairs.confusion(len(names)), names, title, rows, "noisy label"))


def _show_normalization(release: Release, image_size: int, train_split: str, threads: int) -> None:
    from data.images.channels import channels_of, decoded_side, spaced

    side = decoded_side(release) or image_size
    if side < SMALLEST:
        raise DataError(
            f"--image-size is {image_size}; with --normalization it must be the image-size of the run, from"
            f" {SMALLEST} to 1024."
        )
    split = training_split(release, train_split)
    with progress_bar("images", len(spaced(len(split.keys))), "show") as advance:
        found = channels_of(release, split, side, threads, leave_out=True, done=advance)
    if found.unreadable:
        typer.echo(f"{found.unreadable:,} images cannot be read and do not count; the first: {found.first}", err=True)
    typer.echo(f"normalization='release' normalization-args='{found.normalization.as_args()}'")


@app.command(epilog="Example: python -m data check ~/clothing1M --out findings.tsv")
def check(
    folder: Release_,
    out: Annotated[Path, typer.Option(help="Where to write all findings.", callback=file_to_write)] = Path(
        "findings.tsv"
    ),
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
    out: Annotated[Path, typer.Option("--out", help="The file to write.", callback=file_in_new_folders)],
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
    clients: Annotated[int, typer.Option(help="Number of clients.", max=MOST_IMAGES)],
    scheme: Annotated[str, typer.Option("--partition", help=f"One of {', '.join(SCHEMES)}.")] = "iid",
    partition_args: Annotated[str, typer.Option(help='Parameters of the scheme: "alpha=0.3 min-size=64".')] = "",
    train_split: Annotated[str, typer.Option(help=f"Images to deal: one of {', '.join(TRAIN_SPLITS)}.")] = "noisy",
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Also write the partition to this file.", callback=file_to_write)
    ] = None,
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
    sizes = np.array([len(part) for part in parts])
    present = [len(np.unique(labels[part])) for part in parts]
    classes = len(release.class_names)
    typer.echo(
        f"{clients} clients hold {sizes.sum():,} of {len(labels):,} images: {sizes.min():,} to {sizes.max():,} each,"
        f" median {int(np.median(sizes)):,}; {min(present)} to {max(present)} of {classes} classes each."
    )
    if out:
        about = {"scheme": scheme, "args": partition_args, "train-split": train_split, "seed": str(seed)}
        typer.echo(f"{out.resolve()}: sha256 {save_partition(out, split.keys, parts, about)}")
    if plot:
        title = f"{scheme} {partition_args}".strip() + f", seed {seed}: {clients} clients"
        _draw(plot, lambda plots: plots.draw_clients(parts, labels, release.class_names, title))


def _draw(path: Path, draw: Callable[[Any], "Figure"]) -> None:
    """Save the picture that `draw` makes with `data.plots`."""
    try:
        from data import plots  # matplotlib takes a second to import

        plots.save(draw(plots), path)
    except OSError as error:
        raise DataError(f"--plot is {path}, which cannot be written: {error.strerror}.") from None
    except Exception as error:  # whatever a library that draws makes of a name, or lacks
        why = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"--plot is {path}, which cannot be drawn ({why}).") from None
    typer.echo(str(path.resolve()))


def main() -> None:
    run_command_line(app, "python -m data", (DataError,))


if __name__ == "__main__":
    main()
