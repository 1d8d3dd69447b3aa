"""Starts a Ray of this machine alone, with no more processes than its actors need.

Left to itself, Ray 2.55 also starts a worker for each CPU before anybody asks for one, which it throws away because
actors get another environment; an autoscaler, although no machine can be added; a dashboard without pages; and a
process that reads what actors print.
"""

import importlib
import logging
import os
import sys
import threading
import time
from functools import partial
from logging import WARNING
from typing import Any

import ray
from flwr.common import log

from data.text import one_line

READ_SECONDS = 0.1  # between two looks at what actors have printed
PRESTART = "RAY_prestart_worker_first_driver"


def start_lean(init_args: dict[str, Any]) -> None:
    """Like `RayBackend.init_ray`, which finds Ray started afterwards.

    Actors get the driver's ``sys.path`` through the environment of the processes that start them. Flower passes it as
    Ray's `runtime_env` as well, for which each worker starts twice.

    Args:
        init_args: For ``ray.init``; those that ask for more processes get them.
    """
    os.environ.setdefault(PRESTART, "0")  # the user's choice, otherwise
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path, *([known] if known else [])])
    parameter: Any = importlib.import_module("ray._private.parameter")
    parameter.RayParams = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
    if not init_args.get("include_dashboard"):
        node: Any = importlib.import_module("ray._private.node")
        node.Node.start_api_server = lambda self, **_: None
    ray.init(**{"include_dashboard": False, **init_args})
    if init_args.get("log_to_driver", True):
        threading.Thread(target=_pass_on, name="output of actors", daemon=True).start()


class Printed:
    """Stands for the store through which Ray's `LogMonitor` would hand lines to the driver: they are there already."""

    def publish_logs(self, lines: dict[str, Any]) -> None:
        """Show lines of an actor as Ray's driver does: with its name, and repeated ones once."""
        worker: Any = importlib.import_module("ray._private.worker")
        worker.global_worker_stdstream_dispatcher.emit({**lines, "localhost": lines["ip"]})


def _reader() -> Any:
    monitor: Any = importlib.import_module("ray._private.log_monitor")
    monitor.logger.setLevel(logging.WARNING)  # it names each file
    node: Any = importlib.import_module("ray._private.worker")._global_node
    return monitor.LogMonitor(node.node_ip_address, node.get_logs_dir_path(), Printed(), monitor.is_proc_alive)


def _pass_on() -> None:
    """Show what actors print until Ray ends."""
    try:
        reader = _reader()
        while ray.is_initialized():
            reader.update_log_filenames()
            reader.open_closed_files()
            reader.check_log_files_and_publish_updates()
            time.sleep(READ_SECONDS)
    except Exception as error:  # in code of Ray's that may change; the run goes on
        if ray.is_initialized():
            log(WARNING, "What clients print is no longer shown: %s.", one_line(str(error)))
