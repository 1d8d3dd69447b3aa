"""What a file of weights holds, whatever wrote it: tensors by name, or one sentence about what is there instead.

torch.save's files (new and old), safetensors and this app's own ``model.safetensors`` and checkpoints are told apart by
their first bytes, not by their names. Nothing is unpickled but tensors and plain containers. Whatever a reader raises
on a file's bytes is damage of that file.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from data.text import beginning, shown

# Training scripts put the state dict under one of these, beside an optimizer's, an epoch and the like.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
DEEPEST = 4  # wrappers in wrappers
# Segments that torch.compile, DataParallel and FSDP put into names, in any order and at any depth.
_INSERTED = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OURS = "model/"  # the global model in `server_app.checkpoint_file`
SHOWN = 4  # names in a sentence


class WeightsError(ValueError):
    """A file holds no weights that could be used; the text completes a sentence that starts with the file's name."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without wrappers around them and without what wrappers of modules add to their names.

    Raises:
        WeightsError: There is no such file, or it holds something else.
    """
    loaded = _load(path)
    return _plainly_named(_state_dict(loaded))


def _load(path: Path) -> Any:
    try:
        if not path.is_file():
            raise WeightsError("is not a file" if path.exists() else "does not exist")
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror})") from None
    if not start:
        raise WeightsError("is empty")
    if start[:4] == b"PK\x03\x04":
        _check_archive(path)
        return _load_torch(path)
    if start[8:9] == b"{":
        return _load_safetensors(path)
    if start[:1] == b"\x80":  # what torch.save wrote before version 1.6
        return _load_torch(path)
    raise WeightsError(f"is neither a file of torch.save nor safetensors: it begins with {beginning(start)}")


def _check_archive(path: Path) -> None:
    """Torch stores tensors as they are; an archive that grows when it is read is none of its files."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:
        raise WeightsError("is a zip archive that is damaged or cut off") from None
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "data.pkl" not in names:
        some = ", ".join(shown(entry.filename) for entry in entries[:SHOWN]) or "nothing"
        raise WeightsError(f"is a zip archive, but not one of torch.save: it holds {some}")
    if "constants.pkl" in names:
        raise WeightsError("is a TorchScript archive, which holds code; save the model's state_dict() instead")
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise WeightsError("is a compressed archive; torch.save stores tensors uncompressed")


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"holds more than tensors, namely {shown(named[1])}, which is not loaded since it could run code; save"
                " the model's state_dict() instead"
            ) from None
        raise WeightsError("looks like a file of torch.save, but is damaged or cut off") from None
    except Exception:
        raise WeightsError("looks like a file of torch.save, but is damaged or cut off") from None


def _load_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except Exception:
        raise WeightsError("looks like a safetensors file, but is damaged or cut off") from None


def _state_dict(loaded: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors in what was loaded."""
    for _ in range(DEEPEST):
        if not isinstance(loaded, Mapping):
            break
        wrapped = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if wrapped is None and not _tensors(loaded):
            inner = [value for value in loaded.values() if isinstance(value, Mapping) and _tensors(value)]
            wrapped = inner[0] if len(inner) == 1 else None
        if wrapped is None:
            break
        loaded = wrapped
    state = _tensors(loaded) if isinstance(loaded, Mapping) else {}
    if not state:
        raise WeightsError(f"holds {_described(loaded)}, not a state dict of tensors")
    return state


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in values.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _described(loaded: Any) -> str:
    if isinstance(loaded, Tensor):
        return "one tensor without a name"
    if isinstance(loaded, Mapping):
        names = ", ".join(shown(key) for key in list(loaded)[:SHOWN])
        more = ", ..." if len(loaded) > SHOWN else ""
        return f"a dict of {names}{more}" if loaded else "an empty dict"
    kind = type(loaded).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _plainly_named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {name.removeprefix(_OURS): value for name, value in state.items() if name.startswith(_OURS)}
    plain: dict[str, Tensor] = {}
    for name, value in (ours or state).items():
        short = _INSERTED.sub("", name)
        if short in plain:
            raise WeightsError(f"holds {shown(short)} twice, under different prefixes")
        plain[short] = value.detach()
    return plain
