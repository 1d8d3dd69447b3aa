"""Initial weights from torchvision, timm or a file; the classifier and further heads stay fresh."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config.architectures import TIMM
from config.combinations import ALIASES, problem_of_weights
from config.normalization import normalization_of
from config.rules import NAMED_WEIGHTS
from config.run_config import ConfigError, RunConfig
from data.normalization import NORMALIZATIONS
from data.text import one_line, shown
from learning.weights_file import WeightsError, read_weights
from learning.weights_fit import body_of
from task import networks_of

FITS = "it must be a file of torch.save or safetensors, or a run's model.safetensors or checkpoint, with weights of a"


def load_pretrained(model: nn.Module, name: str, source: str) -> None:
    """Fill `model` with pretrained weights in place; its classifier and heads keep their fresh initialisation.

    Args:
        model: From `task.build_model(name, ...)`. Of several networks each gets its own weights if the file has as
            many, otherwise all get the same.
        name: The architecture, as in `task.build_model`.
        source: ``none``; ``DEFAULT`` or a name of torchvision's weights, which are downloaded once, ``imagenet`` among
            them (IMAGENET1K_V1); or the path of a file: see `learning.weights_file`. Half and double precision are
            converted, and a ViT's positions are interpolated to another size of image.

    Raises:
        ConfigError: No internet, no such file, none with finite weights of this architecture, or one that has no such
            weights. `model` is unchanged then.
    """
    if source == "none":
        return
    networks = networks_of(model)
    try:
        weights = _named(networks[0], name, source) if _is_name(source) else read_weights(Path(source).expanduser())
        bodies = [body_of(weights, number, name, network) for number, network in enumerate(networks)]
    except WeightsError as error:
        raise ConfigError(
            f"run config: 'pretrained' is '{one_line(source, 500)}', which {error}; {FITS} {name}."
        ) from None
    for network, body in zip(networks, bodies, strict=True):
        _fill(network, body)


def warnings_of_normalization(config: RunConfig) -> list[str]:
    """A sentence if the weights that `pretrained` names were trained on inputs that are normalised otherwise."""
    if config.pretrained == "none" or not _is_name(config.pretrained):
        return []
    expected = _normalization(config.model, config.pretrained)
    if normalization_of(config) == expected:
        return []
    same = next((name for name, values in NORMALIZATIONS.items() if values == expected), None)
    mean, deviation = map(list, expected)
    what = f"normalization='{same}'" if same else f"channels normalised by mean {mean} and deviation {deviation}"
    return [
        f"The weights {config.pretrained} of {config.model} expect {what}, but 'normalization' is"
        f" '{config.normalization}'."
    ]


def _normalization(model: str, source: str) -> tuple[Any, Any]:
    """The channels' means and deviations that named weights expect."""
    if not model.startswith(TIMM):
        transforms = _torchvisions(model, source).transforms()
        return tuple(transforms.mean), tuple(transforms.std)
    from models import from_timm

    about = from_timm.imported().get_pretrained_cfg(model.removeprefix(TIMM))
    return (tuple(about.mean), tuple(about.std)) if about else NORMALIZATIONS["imagenet"]


def _torchvisions(name: str, source: str) -> Any:
    """What torchvision knows of weights."""
    import torchvision  # takes two seconds, and only this needs it

    return torchvision.models.get_model_weights(name)[ALIASES.get(source, source)]


def _is_name(source: str) -> bool:
    return NAMED_WEIGHTS.fullmatch(source) is not None


@torch.no_grad()
def _fill(network: nn.Module, body: Mapping[str, Tensor]) -> None:
    own = network.state_dict(keep_vars=True)
    for key, value in body.items():
        own[key].copy_(value)


def _named(network: nn.Module, name: str, source: str) -> dict[str, Tensor]:
    """What torchvision or timm downloads, or finds in its cache."""
    if problem := problem_of_weights(name, source):
        raise ConfigError(problem)
    return _of_timm(network, name) if name.startswith(TIMM) else _of_torchvision(name, source)


def _of_torchvision(name: str, source: str) -> dict[str, Tensor]:
    weights = _torchvisions(name, source)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        elsewhere = f"download it elsewhere and set pretrained='/absolute/path/{Path(weights.url).name}'"
        raise _no_download(source, weights.url, error, elsewhere) from None


def _of_timm(network: nn.Module, name: str) -> dict[str, Tensor]:
    """Timm's weights in the form that its network of this image size has."""
    from models import from_timm

    side = int(getattr(network, "built_for", 224))
    timm = from_timm.imported()
    about = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    if about is None or not about.has_weights:
        raise ConfigError(
            f"run config: 'pretrained' is 'DEFAULT', but timm has no weights of {shown(name)}; it must be none or a"
            " file."
        )
    where = about.hf_hub_id or about.url or "its address"
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights before it loads them
            loaded: dict[str, Tensor] = from_timm.create(name, 2, side, pretrained=True).state_dict()
    except Exception as error:  # of requests, httpx or the hub, none of which is imported here
        elsewhere = "download its model.safetensors elsewhere and set pretrained='/absolute/path/model.safetensors'"
        raise _no_download("DEFAULT", str(where), error, elsewhere) from None
    return loaded


def _no_download(source: str, where: str, error: Exception, elsewhere: str) -> ConfigError:
    return ConfigError(
        f"run config: 'pretrained' is '{source}', but {where} cannot be fetched ({one_line(str(error))}); {elsewhere}."
    )
