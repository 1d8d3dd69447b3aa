"""A stand-in of Clothing1M's full size: 1,072,409 files in the released layout, with invented keys.

    python -m benchmarks.data.full_size DIR [--drawn 20000] [--image-size 64] [--lists-only]

DIR is the folder to write. Drawing a million garments would take hours, so `--drawn` of them are drawn, and each is
written under many keys, as a file with a comment of its own: the same pixels, other bytes. `--lists-only` writes the
text files alone, which is what reading them is measured on.
"""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.report import Stopwatch
from data.check import PUBLISHED
from data.layout.writer import Labelled, draw_keys, write_annotations
from data.noise.published import draw_clean, draw_noisy_train, draw_second_labels
from data.options import folder_to_write
from data.sample import NAMES, NAMES_CHN
from data.sample.garments import draw_garment
from data.whole_folders import complete_or_absent


def write_full_size(out: Path, drawn: int, image_size: int, seed: int = 1) -> None:
    """Write the stand-in.

    Args:
        out: A folder that does not exist yet.
        drawn: Different pictures; 0 writes no images.
        image_size: Shorter side in pixels.
        seed: The same seed gives the same files.
    """
    rng = np.random.default_rng([seed, 0])
    keys = draw_keys(sum(PUBLISHED.values()), rng)
    splits, start = {}, 0
    for name, count in PUBLISHED.items():
        true, noisy = draw_noisy_train(count, rng) if name == "noisy_train" else (draw_clean(count, rng), None)
        noisy = draw_second_labels(true, rng) if noisy is None else noisy
        splits[name] = Labelled(keys[start : start + count], true, noisy)
        start += count
    with complete_or_absent(out) as folder:
        write_annotations(folder, NAMES, NAMES_CHN, splits, rng)
        if drawn:
            for leaf in range(1000):
                (folder / "images" / f"{leaf // 100}" / f"{leaf % 100:02}").mkdir(parents=True)
            _write_images(folder, splits, drawn, image_size, seed)


def _write_images(folder: Path, splits: dict[str, Labelled], drawn: int, image_size: int, seed: int) -> None:
    classes = len(NAMES)
    pictures = [
        [jpeg(label, image_size, np.random.default_rng([seed, 1, label, number])) for number in range(drawn // classes)]
        for label in range(classes)
    ]
    pairs = sorted((key, label) for part in splits.values() for key, label in zip(part.keys, part.true, strict=True))
    for count, (key, label) in enumerate(pairs):  # folder by folder, as unpacked tars lie on a disk
        picture = pictures[label][count % len(pictures[label])]
        comment = b"\xff\xfe\x00\x0a" + count.to_bytes(8, "big")
        (folder / key).write_bytes(picture[:2] + comment + picture[2:])


def jpeg(label: int, image_size: int, rng: np.random.Generator) -> bytes:
    """A drawn garment as an image file; `image_size` is its shorter side."""
    out = io.BytesIO()
    draw_garment(label, (image_size, round(1.15 * image_size)), rng).save(out, "JPEG", quality=88)
    return out.getvalue()


def main(
    out: Annotated[Path, typer.Argument(metavar="DIR", callback=folder_to_write)],
    drawn: Annotated[int, typer.Option(help="Different pictures.", min=14)] = 20_000,
    image_size: Annotated[int, typer.Option(help="Shorter side in pixels.")] = 64,
    lists_only: Annotated[bool, typer.Option("--lists-only", help="Write no images.")] = False,
) -> None:
    with Stopwatch() as watch:
        write_full_size(out, 0 if lists_only else drawn, image_size)
    typer.echo(f"{out.resolve()}: written in {watch.seconds:.0f} s")


if __name__ == "__main__":
    run_command(main, __doc__)
