"""`model.safetensors`: the latest global model, with what is needed to use it."""

from dataclasses import replace
from pathlib import Path

import safetensors.torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from config.run_config import RunConfig
from data.whole_files import replace_file
from learning.model_facts import ModelFacts
from learning.shared_state import load_shared, plain_state
from server_app.callbacks import History, OccasionalCallback, RoundResult


class LatestModel(OccasionalCallback):
    """Replaces the file in one step, so that it is always complete."""

    writes = "model.safetensors"

    def __init__(
        self, path: Path, class_names: tuple[str, ...], config: RunConfig, model: nn.Module | None = None
    ) -> None:
        """Set up the file.

        Args:
            path: Of the file.
            class_names: In the order of the outputs.
            config: The run's.
            model: Overwritten with each global model, to write whole networks, with adapters merged; None: what
                travels is all there is.
        """
        super().__init__()
        self._path = path
        self._model = model
        self._facts = ModelFacts.of(config, class_names, model)

    def on_start(self, history: History) -> None:
        """A kill or a full disk may have left the file behind the checkpoint, and there may be no round to come."""
        if history.arrays is not None:
            self._save(history.last_round, history.arrays)

    def write(self, result: RoundResult) -> None:
        self._save(result.server_round, result.arrays)

    def _save(self, server_round: int, arrays: ArrayRecord) -> None:
        metadata = replace(self._facts, round=server_round).to_metadata()
        state = dict(arrays.to_torch_state_dict())
        if self._model is not None:
            load_shared(self._model, state)
            state = plain_state(self._model)
        whole: dict[str, Tensor] = {}
        places: set[int] = set()
        for name, value in state.items():
            plain = value.contiguous().cpu()
            # Tied weights have several names, and safetensors wants each in memory of its own.
            whole[name] = plain.clone() if plain.data_ptr() in places else plain
            places.add(plain.data_ptr())
        replace_file(self._path, safetensors.torch.save(whole, metadata=metadata))
