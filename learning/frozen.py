"""Parts of a network that stay in evaluation mode while the rest trains."""

from functools import cache

from torch import nn

from learning.shared_state import batchnorm_layers


class Evaluating(nn.Module):
    """A mixin before a class of modules: whoever asks for training mode gets evaluation mode."""

    def train(self, mode: bool = True) -> "Evaluating":
        return super().train(False)


def keep_evaluating(module: nn.Module) -> None:
    """Keep a module and all in it in evaluation mode for good, also in copies of it; it stays of its class."""
    if not isinstance(module, Evaluating):
        module.__class__ = _evaluating(type(module))  # type: ignore[arg-type]
    module.eval()


def freeze_statistics(network: nn.Module) -> None:
    """Let BatchNorm normalise by the statistics that it has, and never change them; its weights may train."""
    for layer in batchnorm_layers(network).values():
        keep_evaluating(layer)


@cache
def _evaluating(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (Evaluating, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
