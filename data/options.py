"""Parameters of command lines that name what is written: each is checked before the command does anything.

A leading ``~`` is the user's home, which shells leave as it is in ``--out=~/x``.
"""

import os
from pathlib import Path

import typer

from data.errors import DataError
from data.outputs import check_empty, check_output
from data.user_cache import below_home

PICTURES = (".png", ".svg", ".pdf")
SHEETS = (".png", ".jpg", ".jpeg")  # of `data.contact_sheet`


def file_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option or argument that names a file to write, in a folder that is there."""
    if value is None:
        return None
    name, path = _checked(param, value, "a file")
    _check_folder(path.parent, name, path)
    return path


def file_in_new_folders(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option that names a file to write, whose folder the command makes if need be."""
    if value is None:
        return None
    name, path = _checked(param, value, "a file")
    _check_folder(_nearest(path), name, path)
    return path


def folder_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option or argument that names a folder to write, made with those above it if need be."""
    if value is None:
        return None
    name, path = _checked(param, value, "a folder")
    if not path.exists():
        _check_folder(_nearest(path), name, path)
    return path


def release_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option that names a release to write: a pack if it ends in ``.pack``, or else a folder."""
    if value is not None and value.suffix == ".pack":
        return file_in_new_folders(param, value)
    path = folder_to_write(param, value)
    if path is not None:
        check_empty(path)
    return path


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


def _checked(param: typer.CallbackParam, value: Path, wanted: str) -> tuple[str, Path]:
    """What the user calls it, and where it is."""
    name = param.opts[0] if param.param_type_name == "option" else str(param.metavar)
    path = below_home(str(value))
    check_output(path, name, wanted)
    return name, path


def _nearest(path: Path) -> Path:
    """The folder that is there and in which it will be, at some depth."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def _check_folder(folder: Path, name: str, path: Path) -> None:
    """Refuse a folder into which nothing can be written, while no work is lost."""
    if not folder.is_dir():
        raise DataError(f"{name} is {path}, but {folder} is not a folder; it must be one.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{name} is {path}, but nothing can be written into {folder}; it must be another folder.")
