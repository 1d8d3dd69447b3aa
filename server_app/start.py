"""The ServerApp. It checks the settings before it imports what trains: PyTorch alone takes seconds."""

import sys
import time
from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.object_ref import load_app

from config.check import check_settings
from config.check_data import is_quick, problems_of_data
from config.errors import ConfigError
from config.run_config import RunConfig
from server_app.members import check_number
from server_app.stopping import report_for_people
from simulation import refusal

app = ServerApp()
CODE = Path(__file__).parents[1]
CLIENT_APP = "client_app.app"
PATIENCE_SECONDS = 5.0  # it takes some milliseconds


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federated training; bad settings are reported at once."""
    report_for_people()
    set_by_user: dict[str, Any] = dict(grid.run.override_config)
    try:
        defaults = {key: value for key, value in context.run_config.items() if key not in set_by_user}
        config = check_settings(set_by_user, defaults)
        if refusal.is_simulation():
            check_slices(config, grid)
    except ConfigError as error:
        if refusal.is_simulation():
            # Flower reports it when Ray, which is about to start in another thread, has ended.
            log(ERROR, "The run stopped: %s", error)
            refusal.refuse()
        raise
    # As Flower loads apps: one at a time. The ClientApp, which another thread of a simulation loads meanwhile, imports
    # PyTorch as well, and must not find it half imported.
    load_app("server_app.app:run", ImportError, CODE)(grid, context)


def check_slices(config: RunConfig, grid: Grid) -> None:
    """Check what clients of a simulation would refuse in the roll call, after Ray and all actors have started.

    Raises:
        ConfigError: All that does not go with the images and the number of clients, a sentence each.
    """
    if config.resume or not is_quick(config) or not _all_nodes_are_there():
        return
    clients = len(list(grid.get_node_ids()))
    check_number(config, clients, f"set num-supernodes={config.num_clients} in --federation-config")
    if problems := problems_of_data(config, clients):
        raise ConfigError(" ".join(problems))


def _all_nodes_are_there() -> bool:
    """Whether a simulation knows all of its nodes: it adds them in another thread, which then loads the ClientApp."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while CLIENT_APP not in sys.modules and time.monotonic() < deadline:
        time.sleep(0.01)
    return CLIENT_APP in sys.modules
