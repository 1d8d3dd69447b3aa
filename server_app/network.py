"""The network of a run, as the server has it."""

from torch import nn

from config.run_config import RunConfig
from learning.method import Method
from learning.network import NetworkSpec, build, check_batchnorm
from learning.shared_state import frozen_digest
from server_app.checkpoint_file import Checkpoint
from server_app.resume import check_network


def network(config: RunConfig, method: Method, checkpoint: Checkpoint | None, classes: int) -> tuple[nn.Module, str]:
    """The initial network, or one to be filled from the checkpoint that fits it, and a hash of what does not travel.

    Raises:
        ConfigError: There is no such network, or the checkpoint is another one's.
    """
    spec = NetworkSpec.of(config, method, classes)
    model = build(spec.to_be_filled() if checkpoint else spec)
    check_batchnorm(config, model)
    if checkpoint:
        check_network(checkpoint, model)
    return model, frozen_digest(model)
