"""Fits the weights of a file to a network: drops prefixes and outputs, and says in a sentence what does not fit."""

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from config.architectures import ARCHITECTURES, TIMM
from data.text import shown
from learning.weights_file import WeightsError
from models import build
from task import HEADS, classifier

COUNTER = "num_batches_tracked"  # files from before torch 0.4.1 have none
# Outputs that a file may have beside its classifier: auxiliary ones, and further heads as they were called once.
OTHER_OUTPUTS = ("aux1.", "aux2.", "AuxLogits.", "heads.")
CONSTANTS = ("relative_position_index", "relative_coords_table", "attn_mask")  # buffers that files may have or not
# What torchvision's own files have in place of today's names (DenseNet, Vision Transformer).
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.mlp)\.linear_2\."), r"\1.3."),
)
POSITIONS = "encoder.pos_embedding"  # of torchvision's Vision Transformers
Shapes = Mapping[str, torch.Size]


def body_of(weights: dict[str, Tensor], number: int, name: str, network: nn.Module) -> dict[str, Tensor]:
    """All but the classifier and heads of a network's weights, as float32.

    Args:
        weights: Of one network, or of several side by side.
        number: Which of them is wanted.
        name: The architecture.
        network: The one that they are for.

    Raises:
        WeightsError: They are those of another architecture, or hold what no network computes with.
    """
    own = f"networks.{number}."  # `task.Networks`
    first = own if any(key.startswith(own) for key in weights) else "networks.0."
    weights = {key.removeprefix(first): value for key, value in weights.items() if key.startswith(first)} or weights
    weights = _renamed(weights)
    expected, outputs = _body(network), _outputs(network)
    body = _sized(_plain(weights, expected, outputs), network)
    problem = _misfit(_shapes(body), expected)
    if problem and name.startswith(TIMM):
        converted = _plain(_converted(weights, network), expected, outputs)
        body, problem = (converted, "") if not _misfit(_shapes(converted), expected) else (body, problem)
    if problem:
        raise WeightsError(f"does not hold a {name}: {problem}{_what_it_is(body, name)}")
    return {key: _usable(key, value) for key, value in body.items()}


def _body(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and BatchNorm's buffers that are pretrained; other buffers are constants."""
    outputs = _outputs(network)
    statistics = {
        f"{name}.{buffer}" if name else buffer
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm)
        for buffer in dict(layer.named_buffers(recurse=False))
    }
    wanted = {*dict(network.named_parameters(remove_duplicate=False)), *statistics}
    return {key: value for key, value in network.state_dict().items() if key in wanted and not key.startswith(outputs)}


def _outputs(network: nn.Module) -> tuple[str, ...]:
    """What the names of its classifier and heads begin with."""
    last = classifier(network)
    return (next(f"{name}." for name, layer in network.named_modules() if layer is last), f"{HEADS}.")


def _plain(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], outputs: tuple[str, ...]
) -> dict[str, Tensor]:
    """What a file holds of a network's body, under the network's names."""
    prefix = _prefix(weights, expected)
    body = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    beside = outputs[0].rpartition(".")[0].rpartition(".")[0]  # other layers there end another kind of classifier
    ends = (*OTHER_OUTPUTS, *([f"{beside}."] if beside else []))
    return {
        key: value
        for key, value in body.items()
        if key in expected or not (key.startswith((*outputs, *ends)) or key.endswith(CONSTANTS))
    }


def _prefix(weights: Iterable[str], expected: Mapping[str, Tensor]) -> str:
    """What stands before the names of a network that is part of something larger; empty if it is all there is.

    Raises:
        WeightsError: There are several such networks.
    """
    names = set(weights)
    wanted = [key for key in expected if not key.endswith(COUNTER)]
    found = sorted({key[: -len(wanted[0])] for key in names if key.endswith(wanted[0])})
    whole = [prefix for prefix in found if all(prefix + key in names for key in wanted)]
    if len(whole) > 1:
        firsts = ", ".join(shown(prefix + wanted[0]) for prefix in whole[:4])
        raise WeightsError(f"holds {len(whole)} networks, which have {firsts}")
    # A file of another architecture is described by its outermost names.
    return whole[0] if whole else min((one for one in found if one == "" or one.endswith(".")), key=len, default="")


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        for pattern, new in RENAMED:
            key = pattern.sub(new, key)
        renamed[key] = value
    return renamed


def _sized(body: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The weights of a torchvision ViT, its positions interpolated if they are for images of another size."""
    positions = body.get(POSITIONS)
    if positions is None or not hasattr(network, "patch_size") or positions.ndim != 3:
        return body
    if positions.shape == network.encoder.pos_embedding.shape or not positions.is_floating_point():
        return body
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:  # it changes the mapping
        state: Any = {POSITIONS: positions.float()}
        return {**body, **interpolate_embeddings(network.image_size, network.patch_size, state)}
    except ValueError:  # not positions of a square
        return body


def _converted(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """What timm makes of a file in a form that is not its own, or of positions for another size; else the same."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        converted = convert(dict(weights), network) if convert else weights
    except Exception:  # it expects what is not there, each function something else
        return weights
    return {key: value for key, value in converted.items() if isinstance(value, Tensor)}


def _shapes(values: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in values.items()}


def _misfit(shapes: Shapes, expected: Mapping[str, Tensor]) -> str:
    """The first name that is missing, too much, or of another shape; empty if all fit."""
    for key, value in expected.items():
        if key not in shapes and not key.endswith(COUNTER):
            return f"{shown(key)} is missing"
        if key in shapes and shapes[key] != value.shape:
            return f"{shown(key)} is {_size(shapes[key])} instead of {_size(value.shape)}"
    extra = next((key for key in shapes if key not in expected), None)
    return f"it has {shown(extra)} as well" if extra is not None else ""


def _what_it_is(body: Mapping[str, Tensor], asked: str) -> str:
    """Which other network a file holds, or its first names.

    Those of ours are tried, and the family of the one that was asked for; trying all would take longer than all else.
    """
    shapes = _shapes(body)
    for other, family in ARCHITECTURES.items():
        if not (family.module or asked in family.names):
            continue
        if other != asked and _fits(shapes, other, max(224, family.smallest)):
            return f" (the file holds a {other})"
        if family.small_stem and _fits(shapes, other, 32, "small"):
            return f" (the file holds a {other} with stem='small')"
        if family.small_stem and other == asked and _fits(shapes, other, 224):
            return f" (the file holds a {other} with stem='imagenet')"
    names = ", ".join(f"{shown(key)} {_size(value)}" for key, value in list(shapes.items())[:3])
    return f" (the file holds {len(shapes)} tensors: {names}{', ...' if len(shapes) > 3 else ''})" if shapes else ""


def _fits(shapes: Shapes, name: str, image_size: int, stem: str = "imagenet") -> bool:
    try:
        with torch.device("meta"):
            expected = build(name, 2, image_size, stem)
    except NotImplementedError:  # RegNets compute their widths with tensors
        return False
    outputs = _outputs(expected)
    return not _misfit({key: value for key, value in shapes.items() if not key.startswith(outputs)}, _body(expected))


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
