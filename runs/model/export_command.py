"""`python -m runs export`."""

from pathlib import Path
from typing import Annotated

import typer

from data.errors import DataError
from data.options import file_to_write, folder_to_write
from data.user_cache import below_home
from runs.model.options import RunArgument, WhichOption, model_named
from runs.model.which import Which

EXAMPLE = "Example: python -m runs export my-run --onnx model.onnx --hub my-model"


def export(
    run: RunArgument,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="Write an ONNX model into this .onnx file.", callback=file_to_write)
    ] = None,
    torch_export: Annotated[
        Path | None,
        typer.Option(
            "--torch-export", help="Write a program of PyTorch's into this .pt2 file.", callback=file_to_write
        ),
    ] = None,
    hub: Annotated[
        Path | None,
        typer.Option(
            "--hub",
            help="Write a folder for the Hugging Face hub: weights, config and a card of the model.",
            callback=folder_to_write,
        ),
    ] = None,
    which: WhichOption = Which.LAST,
) -> None:
    """Write the model of a run for other programs, which need nothing of this app.

    RUN is the folder of a run, the name of one in ~/clothing1m-fl-runs, or a model.safetensors. Name at least one of
    --onnx, --torch-export and --hub; nothing that exists is written over. --onnx needs the extra named `onnx`.
    """
    if not (onnx or torch_export or hub):
        raise DataError("nothing is to be written; name at least one of --onnx, --torch-export and --hub.")
    onnx = _new_file("--onnx", onnx, ".onnx")
    torch_export = _new_file("--torch-export", torch_export, ".pt2")
    hub = _new_folder("--hub", hub)
    from runs.model.exporting import subject_of, write_hub, write_programs  # `--help` does without PyTorch

    subject = subject_of(model_named(run), which, needs_onnx=onnx is not None)
    if hub:
        typer.echo(write_hub(subject, hub))
    if onnx or torch_export:
        for said in write_programs(subject.opened, onnx, torch_export):
            typer.echo(said)


def _new_file(flag: str, given: Path | None, suffix: str) -> Path | None:
    """The path of a file that is not there yet.

    Raises:
        DataError: It ends otherwise, or it is there.
    """
    if given is None:
        return None
    path = below_home(str(given))
    if path.suffix.lower() != suffix:
        raise DataError(f"{flag} is {given}; it must end in {suffix}.")
    if path.exists():
        raise DataError(f"{flag} is {given}, which exists already; it must be a file that does not.")
    return path


def _new_folder(flag: str, given: Path | None) -> Path | None:
    """The path of a folder that is empty, or not there yet.

    Raises:
        DataError: Something is in it.
    """
    if given is None:
        return None
    path = below_home(str(given))
    if path.is_dir() and any(path.iterdir()):
        raise DataError(f"{flag} is {given}, which is not empty; it must be a folder that is, or a new one.")
    return path
