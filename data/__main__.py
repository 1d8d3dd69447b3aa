"""`python -m data`: draw a sample, or import a folder of photos, in Clothing1M's released layout."""

from pathlib import Path
from typing import Annotated

import typer

from data.errors import DataError
from data.folder_import import SUFFIXES, Shares, import_folder
from data.sample import SampleSize, draw_sample

app = typer.Typer(
    help="Clothing1M on disk.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
DEFAULT = SampleSize()
Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist yet, or be empty.")]


@app.command()
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


@app.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Holds one folder of images per class.")],
    out: Out,
    clean_train: Annotated[float, typer.Option(help="Share of each class for clean train.")] = 0.1,
    val: Annotated[float, typer.Option(help="Share for clean val.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share for clean test.")] = 0.2,
    noise_rate: Annotated[float, typer.Option(help="Share of wrong labels in noisy train.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of splits, keys and noise.")] = 1,
) -> None:
    """Turn a folder of your own images into the released layout."""
    done = import_folder(folder, out, Shares(clean_train, val, test), noise_rate, seed)
    typer.echo(
        f"{out.resolve()}: " + ", ".join(f"{count} {split}" for split, count in done.counts.items()) + " images."
    )
    if done.skipped:
        typer.echo(f"{done.skipped} files were skipped: only {', '.join(sorted(SUFFIXES))} are read.", err=True)


if __name__ == "__main__":
    try:
        app(prog_name="python -m data")
    except DataError as error:
        typer.echo(f"python -m data: {error}", err=True)
        raise SystemExit(1) from None
