"""Initial weights from torchvision or from a file; the classifier and further heads stay fresh."""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from config.run_config import ConfigError
from data.text import one_line, shown
from learning.weights_file import WeightsError, read_weights
from models import MODELS
from task import HEADS, networks_of

HEAD = "fc."  # the classifier of every model
OUTPUTS = (HEAD, f"{HEADS}.")
COUNTER = "num_batches_tracked"  # files from before torch 0.4.1 have none
FITS = "it must be a file of torch.save or safetensors, or a run's model.safetensors or checkpoint, with weights of a"
Shapes = Mapping[str, torch.Size]


def load_pretrained(model: nn.Module, name: str, source: str) -> None:
    """Fill `model` with pretrained weights in place; its classifier and heads keep their fresh initialisation.

    Args:
        model: From `task.build_model(name, ...)`. Of several networks each gets its own weights if the file has as
            many, otherwise all get the same.
        name: The architecture, as in `task.build_model`.
        source: ``none``, ``imagenet`` (torchvision's IMAGENET1K_V1, downloaded once into torch's cache), or the path
            of a file: see `learning.weights_file`. Half and double precision are converted.

    Raises:
        ConfigError: No internet, no such file, none with finite weights of this architecture, or one without ImageNet
            weights. `model` is unchanged then.
    """
    if source == "none":
        return
    networks = networks_of(model)
    try:
        weights = _download(name) if source == "imagenet" else read_weights(Path(source).expanduser())
        bodies = [_body(weights, number, name, network) for number, network in enumerate(networks)]
    except WeightsError as error:
        raise ConfigError(
            f"run config: 'pretrained' is '{one_line(source, 500)}', which {error}; {FITS} {name}."
        ) from None
    for network, body in zip(networks, bodies, strict=True):
        network.load_state_dict(body, strict=False)


def _body(weights: dict[str, Tensor], number: int, name: str, network: nn.Module) -> dict[str, Tensor]:
    """All but the classifier and heads of a network's weights, as float32.

    Raises:
        WeightsError: They are those of another architecture, or hold what no network computes with.
    """
    own = f"networks.{number}."  # `task.Networks`
    first = own if any(key.startswith(own) for key in weights) else "networks.0."
    weights = {key.removeprefix(first): value for key, value in weights.items() if key.startswith(first)} or weights
    expected = network.state_dict()
    prefix = _prefix(weights, expected)
    body = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    body = _without_outputs(body)
    problem = _misfit({key: value.shape for key, value in body.items()}, _without_outputs(expected))
    if problem:
        raise WeightsError(f"does not hold a {name}: {problem}{_what_it_is(body)}")
    return {key: _usable(key, value) for key, value in body.items()}


def _prefix(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What stands before the names of a network that is part of something larger; empty if it is all there is.

    Raises:
        WeightsError: There are several such networks.
    """
    wanted = [key for key in _without_outputs(expected) if not key.endswith(COUNTER)]
    found = sorted({key[: -len(wanted[0])] for key in weights if key.endswith(wanted[0])})
    whole = [prefix for prefix in found if all(prefix + key in weights for key in wanted)]
    if len(whole) > 1:
        firsts = ", ".join(shown(prefix + wanted[0]) for prefix in whole[:4])
        raise WeightsError(f"holds {len(whole)} networks, which have {firsts}")
    # A file of another architecture is described by its outermost names.
    return whole[0] if whole else min((one for one in found if one == "" or one.endswith(".")), key=len, default="")


def _misfit(shapes: Shapes, expected: Mapping[str, Tensor]) -> str:
    """The first name that is missing, too much, or of another shape; empty if all fit."""
    for key, value in expected.items():
        if key not in shapes and not key.endswith(COUNTER):
            return f"{shown(key)} is missing"
        if key in shapes and shapes[key] != value.shape:
            return f"{shown(key)} is {_size(shapes[key])} instead of {_size(value.shape)}"
    extra = next((key for key in shapes if key not in expected), None)
    return f"it has {shown(extra)} as well" if extra is not None else ""


def _what_it_is(body: Mapping[str, Tensor]) -> str:
    """The model of ours that a file holds, or the first names in it."""
    shapes = {key: value.shape for key, value in body.items()}
    for name, build in MODELS.items():
        with torch.device("meta"):
            expected = _without_outputs(build(2).state_dict())
        if not _misfit(shapes, expected):
            return f" (the file holds a {name})"
    names = ", ".join(f"{shown(key)} {_size(value)}" for key, value in list(shapes.items())[:3])
    return f" (the file holds {len(shapes)} tensors: {names}{', ...' if len(shapes) > 3 else ''})" if shapes else ""


def _usable(key: str, value: Tensor) -> Tensor:
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        raise WeightsError(f"holds {shown(key)} as a {_kind(value)} tensor, not as plain numbers")
    if key.endswith(COUNTER) and not value.is_floating_point() and not value.is_complex():
        return value
    if not value.is_floating_point():
        raise WeightsError(f"holds {shown(key)} as {str(value.dtype).removeprefix('torch.')}, not as floats")
    value = value.float()
    if not value.isfinite().all():
        raise WeightsError(f"holds a value in {shown(key)} that is not finite")
    return value


def _kind(value: Tensor) -> str:
    return "meta" if value.is_meta else "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _without_outputs(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in values.items() if not key.startswith(OUTPUTS)}


def _download(name: str) -> dict[str, Tensor]:
    import torchvision  # takes two seconds, and only this needs it

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
            f"run config: 'pretrained' is 'imagenet', but {weights.url} cannot be fetched ({one_line(str(error))});"
            f" download it elsewhere and set pretrained='/absolute/path/{Path(weights.url).name}'."
        ) from None
