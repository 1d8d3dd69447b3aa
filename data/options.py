"""Parameters of command lines that name what is written: each is checked before the command does anything."""

from pathlib import Path

import typer

from data.errors import DataError
from data.outputs import check_output
from data.user_cache import below_home

PICTURES = (".png", ".svg", ".pdf")
SHEETS = (".png", ".jpg", ".jpeg")  # of `data.contact_sheet`


def file_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option or argument that names a file to write."""
    return _checked(param, value, "a file")


def folder_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option or argument that names a folder to write."""
    return _checked(param, value, "a folder")


def picture_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option that names a picture to write."""
    return _ending_in(PICTURES, param, value)


def sheet_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option that names a contact sheet to write."""
    return _ending_in(SHEETS, param, value)


def _ending_in(suffixes: tuple[str, ...], param: typer.CallbackParam, value: Path | None) -> Path | None:
    checked = file_to_write(param, value)
    if value is not None and value.suffix.lower() not in suffixes:
        raise DataError(f"{param.opts[0]} is {value}; it must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}.")
    return checked


def _checked(param: typer.CallbackParam, value: Path | None, wanted: str) -> Path | None:
    if value is not None:
        name = param.opts[0] if param.param_type_name == "option" else str(param.metavar)
        check_output(below_home(str(value)), name, wanted)
    return value
