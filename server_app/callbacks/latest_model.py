"""`model.safetensors`: the latest global model, with what is needed to use it."""

import json
from pathlib import Path

import safetensors.torch
import torch
from flwr.app import ArrayRecord

from config.run_config import RunConfig
from data.whole_files import replace_file
from server_app.callbacks import OccasionalCallback, RoundResult


class LatestModel(OccasionalCallback):
    """Replaces the file in one step, so that it is always complete."""

    writes = "model.safetensors"

    def __init__(self, path: Path, class_names: tuple[str, ...], config: RunConfig) -> None:
        super().__init__()
        self._path = path
        self._metadata = {
            "class-names": json.dumps(class_names, ensure_ascii=False),
            "model": config.model,
            "method": config.method,
            "image-size": str(config.image_size),
            "normalization": config.normalization,
        }

    def write(self, result: RoundResult) -> None:
        metadata = {**self._metadata, "round": str(result.server_round)}
        replace_file(self._path, safetensors.torch.save(_contiguous(result.arrays), metadata=metadata))


def _contiguous(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in arrays.to_torch_state_dict().items()}
