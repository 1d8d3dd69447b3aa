"""The server's own data. With real nodes it may need none, and then opens none."""

from logging import INFO
from pathlib import Path

from flwr.common import log

from config.errors import ConfigError
from config.run_config import RunConfig
from data.release import Release, open_release
from data.sample import default_sample
from learning.server_half import ServerHalf


def open_data(config: RunConfig, half: ServerHalf, remote: bool) -> Release | None:
    """The release that `data-dir` names, or else a sample; None for a server that needs no data.

    A simulation always has one: its clients' images are in it.

    Args:
        config: The run's.
        half: The method's server half.
        remote: Whether clients are real nodes.

    Raises:
        ConfigError: A server without data, and a method that needs some.
        DataError: The release, or a list on which the server evaluates, cannot be read.
    """
    if remote and not config.server_lists:
        if not half.needs_data:
            return None
        if not config.data_dir:
            raise ConfigError(
                f"run config: 'method' is {config.method!r}, whose server half works with images or labels of the"
                " server's own, but there is no 'data-dir', and the server evaluates on no list of its own; name a"
                " release in 'data-dir', or choose another method"
                f"{' or the path of a matrix as its transition' if config.method == 'forward' else ''}."
            )
    if config.data_dir:
        release = open_release(Path(config.data_dir).expanduser())
    else:
        log(INFO, "No 'data-dir': a sample in Clothing1M's layout, drawn once.")
        release = open_release(default_sample())
    for split in config.server_lists.values():
        release.split(split)  # read now, so that a bad list stops the run before it starts
    return release
