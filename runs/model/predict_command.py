"""`python -m runs predict`."""

from pathlib import Path
from typing import Annotated

import typer

from data.options import sheet_to_write
from runs.model.options import RunArgument, WhichOption, model_named
from runs.model.which import Which

EXAMPLE = "Example: python -m runs predict my-run ~/photos --top 3"


def predict(
    run: RunArgument,
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, the most probable first.")] = 1,
    which: WhichOption = Which.LAST,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets: a line for each photo.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: JSON, whose keys docs/using-the-model.md explains.")
    ] = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Also show the photos with their classes: .png or .jpg.", callback=sheet_to_write),
    ] = None,
) -> None:
    """Print the class of each photo, and how probable the model takes it to be.

    RUN is the folder of a run, the name of one in ~/clothing1m-fl-runs, or a model.safetensors. PHOTO is an image file,
    or a folder of them; repeatable. Photos that cannot be read are named, and the others go on; exit code 1 if none can
    be read.
    """
    from runs.model.predicting import predict as predict_photos  # `--help` does without PyTorch

    predict_photos(model_named(run), which, photos, top, as_csv, as_json, contact_sheet)
