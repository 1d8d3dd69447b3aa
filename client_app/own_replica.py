"""This process's model, with weights that do not travel from where the run, or this node, has them."""

from collections.abc import Sequence

from flwr.app import Context, Message

from config.rules import is_absolute
from config.run_config import ConfigError, RunConfig
from data.text import shown
from learning.network import NetworkSpec
from learning.replica import Replica, kept_replica
from messages import keys
from methods import build_method
from task import Compute


def replica_of(context: Context, config: RunConfig, class_names: Sequence[str], compute: Compute) -> Replica:
    """The replica for a run.

    Args:
        context: Its node config may say in `pretrained` where this node has the file.
        config: The run's.
        class_names: As many as the network has outputs.
        compute: Where it lies.

    Raises:
        ConfigError: The weights cannot be read, or do not fit.
    """
    own = context.node_config.get(keys.PRETRAINED, "")
    if own and not (isinstance(own, str) and is_absolute(own)):
        raise ConfigError(f"node config: 'pretrained' is {shown(own)}; it must be the absolute path of a file.")
    spec = NetworkSpec.of(config, build_method(config), len(class_names)).to_be_filled(str(own))
    try:
        return kept_replica(spec, compute.device, config.compile)
    except ConfigError as error:
        if not own:
            raise
        raise ConfigError(str(error).replace("run config: 'pretrained'", "node config: 'pretrained'", 1)) from None


def checked_replica(
    message: Message, context: Context, config: RunConfig, class_names: Sequence[str], compute: Compute
) -> Replica:
    """The same, if its weights that do not travel are still those that the server has, as in the roll call.

    Raises:
        ConfigError: They are others.
    """
    replica = replica_of(context, config, class_names, compute)
    wanted = message.content.config_records[keys.CONFIG].get(keys.FROZEN, "")
    if wanted and replica.frozen != wanted:
        raise ConfigError(
            f"the frozen weights of this client ({replica.frozen}) are no longer those of the run ({wanted!s}): what"
            " 'pretrained' names, for the run or for the node, has changed since the roll call."
        )
    return replica
