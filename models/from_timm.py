"""Networks of timm (PyTorch Image Models) by the names that it gives them, after ``timm:``.

timm is imported when one is built. What its networks need is not in `config.architectures`, so each is tried here on
one image before it is used.
"""

from typing import Any

import torch
from torch import nn

from config.architectures import TIMM, TIMM_MISSING
from config.errors import ConfigError
from config.rules import closest
from data.text import one_line, shown


def build(name: str, num_classes: int, image_size: int) -> nn.Module:
    """One with fresh weights, for images of this size if it is built for one size.

    Args:
        name: ``timm:`` and timm's own name, with or without the tag of its weights.
        num_classes: Outputs.
        image_size: Side of the input.

    Raises:
        ConfigError: timm is not installed or has no such network, or it cannot be used: it does not end in one linear
            layer on features, or does not take images of this size.
    """
    network = created(name, num_classes, image_size)
    _check(name, network, num_classes, image_size)
    network.built_for = image_size  # `learning.pretrained` asks for weights of the same size
    return network  # type: ignore[no-any-return]


def created(name: str, num_classes: int, image_size: int) -> Any:
    """What timm makes of a name, with fresh weights, whether or not it can be used; see `build`."""
    check_name(name)
    try:
        return create(name, num_classes, image_size)
    except Exception as error:  # each constructor says in its own way what does not fit
        raise _refused(name, f"which timm does not build at 'image-size' {image_size}: {_said(error)}") from None


def create(name: str, num_classes: int, image_size: int, *, pretrained: bool = False) -> Any:
    """``timm.create_model``, with ``img_size`` where the constructor takes it; it raises what it likes."""
    timm = imported()
    own, options = name.removeprefix(TIMM), {"num_classes": num_classes, "pretrained": pretrained}
    try:
        network = timm.create_model(own, img_size=image_size, **options)
        network.takes_size = True  # for `models.outside`
        return network
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(own, **options)


def imported() -> Any:
    """The library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ConfigError(f"run config: 'model' begins with '{TIMM}', {TIMM_MISSING}") from None
    return timm


def check_name(name: str) -> None:
    """Check that timm has this network, and weights of its tag.

    Raises:
        ConfigError: It has not; the sentence names the closest ones.
    """
    timm = imported()
    own, _, tag = name.removeprefix(TIMM).partition(".")
    if not timm.is_model(own):
        raise ConfigError(
            f"run config: 'model' is {shown(name)}, but timm {timm.__version__} has no such network"
            f"{closest(own, timm.list_models(), TIMM)}; `timm.list_models()` has all names."
        )
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{own}.*")]
    if tag and tag not in tags:
        known = f"those of {own} are {', '.join(tags)}" if tags else f"{own} has none"
        raise ConfigError(f"run config: 'model' is {shown(name)}, but timm has no weights of this tag; {known}.")


@torch.no_grad()
def _check(name: str, network: Any, num_classes: int, image_size: int) -> None:
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.out_features != num_classes:
        what = "none" if classifier is None else f"a {type(classifier).__name__}"
        raise _refused(name, f"whose classifier is {what} instead of one linear layer; it must be another one.")
    features: list[torch.Size] = []
    hook = classifier.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0].shape))
    was_training = network.training
    try:
        answer = network.eval()(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # each network says in its own way that an image is too small for it
        size = f"'image-size' {image_size}"
        raise _refused(name, f"which does not take images of {size}: {_said(error)}") from None
    finally:
        hook.remove()
        network.train(was_training)
    if getattr(answer, "shape", None) != (1, num_classes) or [len(one) for one in features] != [2]:
        raise _refused(name, "which does not answer with logits of one linear layer on features; it must be another.")


def _refused(name: str, why: str) -> ConfigError:
    return ConfigError(f"run config: 'model' is {shown(name)}, {why}")


def _said(error: Exception) -> str:
    return f"{one_line(str(error) or type(error).__name__, 200).rstrip('.')}."
