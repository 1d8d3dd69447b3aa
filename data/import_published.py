"""`python -m data import KIND` of published datasets: a command for each."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from data.errors import DataError
from data.import_commands import Out, Source_, import_, importing, note
from data.sources.animal10n import ANIMALS, read_animal10n
from data.sources.cifar import Options, read_cifar, remark_on_size
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from data.sources.food101n import FOOD_TESTS, read_food101n
from data.sources.hub_files import Wanted
from data.sources.huggingface import read_huggingface
from data.sources.human_labels import SETS
from data.sources.lists import other_counts
from data.sources.webvision import MINI, MINI_IMAGES, read_webvision

__all__ = ["importing"]
WANTED = Wanted()
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
    note(remark_on_size(read, kind))
    import_(read, out)


@importing.command(epilog="Example: python -m data import animal10n ~/raw_image_ver --out ~/animal10n")
def animal10n(source: Source_, out: Out) -> None:
    """ANIMAL-10N: ten animals, labels given by people.

    DIR is a folder that holds training and testing.
    """
    found = read_animal10n(source)
    note(other_counts(found, "ANIMAL-10N", ANIMALS))
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
        note(other_counts(found, "Food-101", FOOD_TESTS))
    else:
        note("there is no clean test; it is that of Food-101, whose folder --food101 names.")
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
        note(other_counts(found, "mini WebVision", MINI_IMAGES))
    import_(found, out)


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
