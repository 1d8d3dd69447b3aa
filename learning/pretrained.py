"""Initial weights from torchvision or from a file, with the classifier replaced."""

import pickle
from pathlib import Path
from urllib.error import URLError

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from config.run_config import ConfigError

HEAD = "fc."  # the classifier of every model


def load_pretrained(model: nn.Module, name: str, source: str) -> None:
    """Fill `model` with pretrained weights in place; its classifier keeps its fresh initialisation.

    Args:
        model: From `task.build_model(name, ...)`.
        name: The architecture, as in `task.build_model`.
        source: ``none``, ``imagenet`` (torchvision's IMAGENET1K_V1, downloaded once into torch's cache), or the path
            of a ``.safetensors``, ``.pt`` or ``.pth`` file that holds a state dict of the same architecture.

    Raises:
        ConfigError: No internet, no such file, not a state dict, another architecture, or one without ImageNet weights.
    """
    if source == "none":
        return
    weights = _download(name) if source == "imagenet" else _read(Path(source).expanduser())
    body = {key: value for key, value in weights.items() if not key.startswith(HEAD)}
    expected = {key: value for key, value in model.state_dict().items() if not key.startswith(HEAD)}
    # Files from before torch 0.4.1 have no step counters; everything else must be there.
    missing = [key for key in expected if key not in body and not key.endswith("num_batches_tracked")]
    wrong = [key for key, value in body.items() if key not in expected or value.shape != expected[key].shape]
    if missing or wrong:
        example = f"'{missing[0]}' is missing" if missing else f"'{wrong[0]}' does not fit"
        raise ConfigError(f"run config: 'pretrained' is {source!r}, which does not hold a {name}: {example}.")
    model.load_state_dict(body, strict=False)


def _download(name: str) -> dict[str, Tensor]:
    if name not in torchvision.models.list_models():
        raise ConfigError(
            f"run config: 'pretrained' is 'imagenet', but there are no such weights for the 'model' {name}; it must be"
            " none or a file, or the 'model' a ResNet."
        )
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"run config: 'pretrained' is 'imagenet', but {weights.url} cannot be fetched ({error}); download it"
            f" elsewhere and set pretrained='/absolute/path/{Path(weights.url).name}'."
        ) from None


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"run config: 'pretrained' is '{path}', but there is no such file.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"run config: 'pretrained' is '{path}', which cannot be read as weights: {reason}") from None
    # Training scripts often wrap the state dict, and DataParallel prefixes every key.
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ConfigError(f"run config: 'pretrained' is '{path}', which does not hold a state dict of tensors.")
    return {key.removeprefix("module."): value for key, value in loaded.items()}
