"""The ServerApp. It checks the settings before it imports what trains: PyTorch alone takes seconds."""

from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.object_ref import load_app

from config.check import check_settings
from config.errors import ConfigError
from server_app.stopping import report_for_people
from simulation import refusal

app = ServerApp()
CODE = Path(__file__).parents[1]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federated training; bad settings are reported at once."""
    report_for_people()
    set_by_user: dict[str, Any] = dict(grid.run.override_config)
    try:
        check_settings(set_by_user, {key: value for key, value in context.run_config.items() if key not in set_by_user})
    except ConfigError as error:
        if refusal.is_simulation():
            # Flower reports it when Ray, which is about to start in another thread, has ended.
            log(ERROR, "The run stopped: %s", error)
            refusal.refuse()
        raise
    # As Flower loads apps: one at a time. The ClientApp, which another thread of a simulation loads meanwhile, imports
    # PyTorch as well, and must not find it half imported.
    load_app("server_app.app:run", ImportError, CODE)(grid, context)
