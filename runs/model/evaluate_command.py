"""`python -m runs evaluate`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data.options import picture_to_write, sheet_to_write
from runs.model.options import RunArgument, WhichOption, model_named
from runs.model.which import Which

EXAMPLE = "Example: python -m runs evaluate my-run --data ~/photos --worst mistakes.png"


class Lists(StrEnum):
    """Of a release."""

    CLEAN_TEST = "clean_test"
    CLEAN_VAL = "clean_val"
    CLEAN_TRAIN = "clean_train"
    NOISY_TRAIN = "noisy_train"


def evaluate(
    run: RunArgument,
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Other images: a release, a pack, or a folder with one folder of photos per class; empty: the run's.",
        ),
    ] = "",
    split: Annotated[
        Lists | None, typer.Option(help="Which list; by default that of the run's test, of other data clean_test.")
    ] = None,
    which: WhichOption = Which.LAST,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: JSON, whose keys docs/using-the-model.md explains.")
    ] = False,
    confusion: Annotated[
        Path | None,
        typer.Option(help="Also draw which class is taken for which: .png, .svg or .pdf.", callback=picture_to_write),
    ] = None,
    worst: Annotated[
        Path | None,
        typer.Option(help="Also show the mistakes of the highest loss: .png or .jpg.", callback=sheet_to_write),
    ] = None,
) -> None:
    """Apply a run's model to images whose classes are known, and print how well it does, class by class.

    RUN is the folder of a run, the name of one in ~/clothing1m-fl-runs, or a model.safetensors. Without --data and
    --split, the numbers are those of its round in metrics.jsonl.
    """
    from runs.model.evaluating import evaluate as evaluate_model  # `--help` does without PyTorch

    evaluate_model(model_named(run), which, data, split or "", as_json, confusion, worst)
