"""`model.safetensors`: the global model of the last finished round, with what is needed to use it."""

import json
from pathlib import Path

import safetensors.torch
import torch
from flwr.app import ArrayRecord

from config import RunConfig
from server_app.callbacks import Callback, RoundResult
from server_app.files import replace_file


class FinalModel(Callback):
    """Writes once, at the end, whether the run finished or stopped."""

    def __init__(self, path: Path, class_names: tuple[str, ...], config: RunConfig) -> None:
        self._path = path
        self._class_names = class_names
        self._config = config
        self._last: RoundResult | None = None

    def after_round(self, result: RoundResult) -> None:
        self._last = result

    def on_end(self) -> None:
        if self._last is None:
            return
        metadata = {
            "class-names": json.dumps(self._class_names, ensure_ascii=False),
            "model": self._config.model,
            "image-size": str(self._config.image_size),
            "normalization": self._config.normalization,
            "round": str(self._last.server_round),
        }
        data = safetensors.torch.save(_contiguous(self._last.arrays), metadata=metadata)
        replace_file(self._path, data)


def _contiguous(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in arrays.to_torch_state_dict().items()}
