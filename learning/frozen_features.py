"""Features in place of images, where neither the images that a frozen body sees nor the body ever change.

With ``trainable = "head"`` what enters the last layer of a network is then the same in every step, visit and round. So
a client computes it once, and trains the last layer, and further heads, as small networks of their own whose inputs are
features. They hold the layers of the full networks, under the same names: the optimiser, what travels and what a method
keeps are the same. Several networks have a body each; each batch has the features of all, side by side.
"""

import torch
from torch import Tensor, nn

from config.run_config import RunConfig
from learning.frozen import keep_evaluating
from learning.inference import Inference
from learning.method import Method
from learning.shared_state import TRAINED
from task import HEADS, Networks, classifier, networks_of

PLAIN = "none"  # the augmentation that draws nothing


def keeps_features(method: Method, config: RunConfig) -> bool:
    """Whether a client trains on features; whatever it has kept so far, since its state depends on it.

    A compiled network would not notice the hook that collects them.
    """
    unchanged = set(method.views(config.augmentation)) == {PLAIN} and not method.mixes
    return config.trainable == "head" and not config.compile and unchanged


class Head(nn.Module):
    """What trains of one network, and answers to features."""

    def __init__(self, network: nn.Module, first: int) -> None:
        """Share the layers of `network`.

        Args:
            network: With a frozen body.
            first: Of the columns that are its features.
        """
        super().__init__()
        layer = classifier(network)
        self._columns = slice(first, first + layer.in_features)
        self._path = next(path for path, module in network.named_modules() if module is layer)
        _put(self, self._path, layer)
        if hasattr(network, HEADS):
            _put(self, HEADS, getattr(network, HEADS))
        setattr(self, TRAINED, getattr(network, TRAINED))
        keep_evaluating(self)

    def forward(self, features: Tensor) -> Tensor:
        """(n, width of all networks) to (n, classes)."""
        logits: Tensor = self.get_submodule(self._path)(features[:, self._columns])
        return logits


def heads_of(model: nn.Module) -> nn.Module:
    """The model to train on what `features_of_bodies` returns; training it trains `model`."""
    heads: list[nn.Module] = []
    first = 0
    for network in networks_of(model):
        heads.append(Head(network, first))
        first += classifier(network).in_features
    return Networks(heads) if isinstance(model, Networks) else heads[0]


def width_of(model: nn.Module) -> int:
    """Features of all networks together."""
    return sum(classifier(network).in_features for network in networks_of(model))


def features_of_bodies(model: nn.Module, inference: Inference) -> Tensor:
    """(n, width of all networks) float32, on the device: what enters the last layers, in evaluation mode.

    Images come in fixed batches and in order, so that the same device computes the same bits again.
    """
    return torch.cat([inference.features_of_all(network) for network in networks_of(model)], dim=1)


def _put(parent: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` under the path that it has in the full network."""
    *outer, name = path.split(".")
    for part in outer:
        if not hasattr(parent, part):
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(name, module)
