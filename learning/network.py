"""The one place that builds a run's network: architecture, initial weights, what trains in it, BatchNorm."""

from dataclasses import dataclass, replace

from torch import nn

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from config.stems import stem_of
from learning.frozen import freeze_statistics
from learning.method import Method
from learning.pretrained import load_pretrained
from learning.shared_state import batchnorm_layers
from learning.trainable import TRAINABLES, Trainable
from task import Heads, build_model, derived_generator, networks_of

BATCHNORMS = ("average", "local", "frozen")


@dataclass(frozen=True)
class NetworkSpec:
    """All that decides a network; equal ones give equal networks, bit for bit.

    Attributes:
        model: Its architecture.
        num_classes: Outputs.
        networks: How many are trained side by side.
        heads: Further heads of the method, see `task.build_model`.
        image_size: Side of the input.
        seed: The run's.
        pretrained: Where initial weights come from.
        trainable: What trains, a name.
        trainable_args: Its parameters.
        batchnorm: What becomes of BatchNorm.
        stem: Its first layers: ``imagenet`` or ``small``. `auto` has been decided, since it asks for `pretrained`.
    """

    model: str
    num_classes: int
    networks: int = 1
    heads: Heads = ()
    image_size: int = 224
    seed: int = 0
    pretrained: str = "none"
    trainable: str = "all"
    trainable_args: str = ""
    batchnorm: str = "average"
    stem: str = "imagenet"

    @classmethod
    def of(cls, config: RunConfig, method: Method, num_classes: int) -> "NetworkSpec":
        """What a run's config asks for, with the networks and heads of its method."""
        return cls(
            config.model,
            num_classes,
            method.networks,
            method.heads,
            config.image_size,
            config.seed,
            config.pretrained,
            config.trainable,
            config.trainable_args,
            config.batchnorm,
            stem_of(config),
        )

    def to_be_filled(self, pretrained: str = "") -> "NetworkSpec":
        """The same for one whose shared weights will arrive from elsewhere.

        If all weights travel, no initial ones are needed, and the seed does not count.

        Args:
            pretrained: Where this machine has the weights that do not travel; empty: in the same place.
        """
        if self.trainable == "all":
            return replace(self, seed=0, pretrained="none")
        return replace(self, pretrained=pretrained or self.pretrained)


def build(spec: NetworkSpec) -> nn.Module:
    """The network, in channels-last layout on the CPU; `task.Networks` if there are several.

    Raises:
        ConfigError: Pretrained weights, or the layers that `trainable-args` names, are not there or do not fit.
    """
    trainable: Trainable = build_named("trainable", TRAINABLES, spec.trainable, spec.trainable_args)
    model = build_model(spec.model, spec.num_classes, spec.seed, spec.networks, spec.heads, spec.image_size, spec.stem)
    load_pretrained(model, spec.model, spec.pretrained)
    for number, network in enumerate(networks_of(model)):
        trainable.prepare(network, derived_generator(spec.seed, "initial adapters", number))
        if spec.batchnorm == "frozen":
            freeze_statistics(network)
    return model


def check_batchnorm(config: RunConfig, model: nn.Module) -> None:
    """Check that `batchnorm` means something for the run's network.

    Raises:
        ConfigError: It has no BatchNorm.
    """
    if config.batchnorm != "average" and not batchnorm_layers(model):
        raise ConfigError(
            f"run config: 'batchnorm' is {config.batchnorm!r}, but {config.model} has no BatchNorm; it must be average."
        )
