"""Whether the server has refused a simulation's settings: then Ray need not start."""

import sys
import threading

DRIVER = "flwr.simulation.run_simulation"
_refused = threading.Event()


def is_simulation() -> bool:
    """Whether this process runs a simulation, with the ServerApp in one of its threads."""
    return DRIVER in sys.modules


def refuse() -> None:
    """Remember that there is nothing to simulate; the reason is in the log."""
    _refused.set()


def is_refused() -> bool:
    """Whether `refuse` was called in this process."""
    return _refused.is_set()
