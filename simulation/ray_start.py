"""How a simulation starts Ray: closed to the network, joined only where that can work, and a sentence where it fails.

Left to itself, Ray listens on all interfaces, and whoever reaches one of its ports can run any program as its user. A
simulation on one machine needs none of that: all of Ray then listens on the loopback, and because other users of the
machine reach that as well, it asks for a token that only this run's processes have. A cluster that the user started is
theirs to protect.
"""

import errno
import importlib
import os
import resource
import secrets
import shutil
import socket
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from simulation.capacity import GIB, memory_bytes
from simulation.refusal import is_refused

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 10.0  # Ray itself would silently try for many minutes
LONGEST_FOLDER = 39  # Ray's sockets are 68 characters below it, and Linux allows them 107
ENOUGH_DISK, ENOUGH_MEMORY = GIB // 4, GIB  # with less, a start may fail
# So do limits of processes below these.
LIMITS = (
    (resource.RLIMIT_NOFILE, 1024, "only {} files may be open at once: run `ulimit -n 65536`"),
    (resource.RLIMIT_NPROC, 1024, "this user may have only {} processes and threads: run `ulimit -u 65536`"),
    (resource.RLIMIT_FSIZE, 16 * GIB, "no file may be larger than {} bytes: run `ulimit -f unlimited`"),
    (resource.RLIMIT_AS, 64 * GIB, "no process may have more than {} bytes of memory: run `ulimit -v unlimited`"),
)
RESTART = "restart the SuperLink, which keeps the settings of the shell that started it"


def starting_in_one_sentence(init_ray: Callable[..., None]) -> Callable[..., None]:
    """Wrap `RayBackend.init_ray`, which prints several tracebacks, and waits for minutes if no cluster answers."""

    @wraps(init_ray)
    def init(self: Any, backend_config: dict[str, Any]) -> None:
        from flwr.supercore.exit import ExitCode, flwr_exit
        from ray._private.services import canonicalize_bootstrap_address

        from simulation.lean_ray import start_lean

        if is_refused():
            flwr_exit(ExitCode.SIMULATION_EXCEPTION, "The run stopped: its settings are refused, as said above.")
        init_args = backend_config.get("init_args", {})
        address = None
        try:
            # RAY_ADDRESS, or a cluster that `ray start` began on this machine
            if address := canonicalize_bootstrap_address(None):  # type: ignore[arg-type]
                check_cluster(address, init_args)
                return init_ray(self, backend_config)
            start_lean(closed_to_the_network(init_args))
            return init_ray(self, backend_config)
        except Exception as error:
            why = why_not_joined(address, error) if address else why_not_started(error)
            flwr_exit(ExitCode.SIMULATION_EXCEPTION, f"The run stopped: {why}")

    return init


def closed_to_the_network(init_args: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``ray.init`` that start a Ray of this machine and user alone; those that are given are kept."""
    services: Any = importlib.import_module("ray._private.services")
    services.resolve_ip_for_localhost = lambda host: host  # Ray would replace the loopback by an outside address
    if "RAY_AUTH_MODE" not in os.environ:  # the user's choice, otherwise
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        raylet.Config.initialize("")  # has read the environment when Ray was imported
    return {"_node_ip_address": LOOPBACK, **init_args}


def check_cluster(address: str, init_args: dict[str, Any]) -> None:
    """Check that a Ray cluster can be joined.

    Args:
        address: Host and port of its head.
        init_args: The user's settings for ``ray.init``.

    Raises:
        ValueError: The number of CPUs or GPUs is set, which only the cluster itself decides.
        ConnectionError: Nothing answers.
    """
    # Ray remembers what `ray start` began on this machine, also if that has ended without `ray stop`.
    alone = "unset RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "set RAY_ADDRESS=local"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); start one there with `ray start --head`, or {alone} and"
            f" {RESTART}."
        ) from None
    for key in ("num_cpus", "num_gpus"):
        if key in init_args:
            raise ValueError(
                f"federation config: 'init-args-{key.replace('_', '-')}' is {init_args[key]}, but the Ray cluster at"
                f" {address} has what its machines were started with; remove the key, or {alone} and {RESTART}."
            )


def why_not_joined(address: str, error: BaseException) -> str:
    """One sentence: why the Ray cluster at an address does not let this process join, and what to change."""
    cause: BaseException | None = error
    while cause:
        if "InvalidAuthToken" in str(cause):
            return (
                f"the Ray cluster at {address} refuses this token, or asks for one; set RAY_AUTH_MODE=token, have its"
                f" token in ~/.ray/auth_token, and {RESTART}."
            )
        cause = cause.__cause__ or cause.__context__
    return str(error)


def why_not_started(error: Exception) -> str:
    """One sentence: why Ray did not start on this machine, as far as that can be told, and what to change."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return f"Ray, which runs the simulated clients, did not start ({reason}); {_what_to_change(error, folder)}."


def _what_to_change(error: Exception, folder: Path) -> str:
    """What is wrong with the machine: what the error names, or else what there is too little of."""
    number = getattr(error, "errno", None)
    if "AF_UNIX path" in str(error) or number == errno.ENAMETOOLONG:
        return f"its folder must have at most {LONGEST_FOLDER} characters: set RAY_TMPDIR, and {RESTART}"
    for kind, enough, problem in LIMITS:
        if 0 <= (limit := resource.getrlimit(kind)[0]) < enough:  # -1 is no limit
            return f"{problem.format(limit)}, and {RESTART}"
    if number in (errno.EAGAIN, errno.ENOMEM):
        return "the machine has no room for more processes: end some, or give it more memory"
    if isinstance(error, OSError) and error.filename:
        return f"it must be able to write to {folder}: mend that, or set RAY_TMPDIR to another folder and {RESTART}"
    if (left := _free_bytes(folder)) < ENOUGH_DISK:
        return f"{folder} has only {left >> 20} MiB left: free some, or set RAY_TMPDIR to another folder and {RESTART}"
    if (memory := memory_bytes("MemAvailable")) is not None and memory < ENOUGH_MEMORY:
        return f"the machine has only {memory >> 20} MiB of memory left: free some, and start the run again"
    load, cpus = os.getloadavg()[0], os.cpu_count()
    return (
        f"the machine may have been too busy (its load is {load:.1f} on {cpus} CPUs): start the run again, and if that"
        f" does not help, look into {folder}/ray/session_latest/logs"
    )


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
