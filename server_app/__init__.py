"""The server of a run: roll call, rounds, strategies, callbacks. The ServerApp is in `server_app.start`."""

import sys
from logging import INFO
from pathlib import Path

from flwr.common import log

# Flower's processes that run a ServerApp import this first, and the next word would come many seconds later.
if Path(sys.argv[0]).name in ("flwr-simulation", "flwr-serverapp"):
    log(INFO, "clothing1m-fl: loading PyTorch, then the data, then its clients;")
    log(INFO, "round 1 begins after 20 to 60 seconds on most machines.")
