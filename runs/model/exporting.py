"""What `python -m runs export` does."""

from collections.abc import Iterator
from pathlib import Path

from data.whole_files import replace_file
from runs.hub.folder import write_folder
from runs.hub.subject import Subject
from runs.model.onnx_file import OPSET, check_installed, difference, onnx_file
from runs.model.opened import OpenedModel, open_model
from runs.model.traced import torch_export_file, traced
from runs.model.which import Which
from runs.run import is_run, read_run


def subject_of(model: Path, which: Which, *, needs_onnx: bool) -> Subject:
    """The model that is exported, with what its run says of it.

    Args:
        model: The folder of a run, or a file.
        which: Of a run's models.
        needs_onnx: Whether it will be written as ONNX.

    Raises:
        RunsError: There is none, or this machine lacks what ONNX needs.
    """
    if needs_onnx:
        check_installed()
    opened = open_model(model, which.value)
    folder = next((one for one in (opened.path.parent, opened.path.parent.parent) if is_run(one)), None)
    return Subject(opened, read_run(folder) if folder else None)


def write_hub(subject: Subject, out: Path) -> str:
    """Write the folder; the sentence about it."""
    write_folder(subject, out)
    return f"{out.resolve()}: a folder for the Hugging Face hub; read its README.md before you publish it."


def write_programs(opened: OpenedModel, onnx: Path | None, torch_export: Path | None) -> Iterator[str]:
    """Write the files that are named; a sentence about each, once it is there."""
    program = traced(opened)
    if onnx:
        file = onnx_file(opened, program)
        found = difference(opened, file)
        replace_file(onnx, file)
        checked = "not compared with PyTorch, which needs `pip install onnxruntime`"
        if found is not None:
            checked = f"logits of ONNX Runtime differ from PyTorch's by {found:.1g} at most"
        yield f"{onnx.resolve()}: {_size(file)}, opset {OPSET}; {checked}."
    if torch_export:
        file = torch_export_file(program, opened.facts)
        replace_file(torch_export, file)
        yield f"{torch_export.resolve()}: {_size(file)}; torch.export.load opens it."


def _size(file: bytes) -> str:
    return f"{len(file) / 2**20:.1f} MiB"
