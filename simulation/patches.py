"""Ray settings that Flower's simulation does not expose, and plain sentences where it cannot start.

Flower creates plain actors: a dead one returns to the pool, is picked first from then on, and answers every message
with an error. Ray itself can restart an actor and repeat its task, which changes no result, because a client's reply
depends on the message alone. `simulation.actor_pool` does the same for actors whose machine is gone.

Ray also replaces the SIGTERM handler when it starts, and exits on it silently: the run's status then stays "running"
until the SuperLink notices, and the log does not tell how to resume. Flower's own handler, which Ctrl-C reaches, does
both.

Flower waits for replies in as many threads as the server's machine has cores, plus 4, but at most 32: too few for the
actors of several machines.

Flower hands out messages by scanning all of them once per node, ten times a second: 10,000 messages to 10,000 nodes are
scanned up to 50 million times before the last one leaves, during minutes in which little else happens.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from queue import Queue
from typing import Any

from flwr.app import Message
from flwr.supercore.date import now

from simulation.capacity import check_request, machines_of, share_of
from simulation.out_of_band import leave_arrays_out_of_pickles
from simulation.quiet import quieten
from simulation.ray_start import starting_in_one_sentence
from simulation.refusal import DRIVER as DRIVER

RESTARTS = -1  # as often as it takes
# A message that kills its actor twice gets an error reply: it would do so again, for instance by needing more memory
# than there is.
RETRIES = {"run": 1}
THREADS = 4096  # at most; one is started for each actor
HAND_OUT_SECONDS = 0.02  # between two checks for new messages


def prepare_simulation() -> None:
    """Apply the patches in the process that is about to start or join Ray, one of them in its actors, none elsewhere.

    That process first imports the ClientApp, to check that it can be loaded.
    """
    ray = sys.modules.get("ray")
    started = ray is not None and ray.is_initialized()
    if started:
        quieten()
        leave_arrays_out_of_pickles()  # for replies
    elif DRIVER in sys.modules:
        quieten()
        _replace_dead_actors()
        send_the_class_of_actors()
        _leave_sigterm_to_flower()
        _wait_for_every_actor()
        _hand_out_in_one_pass()
        leave_arrays_out_of_pickles()  # for messages
        _start_ray_closed_and_explain_failures()
        _refuse_clients_that_do_not_fit()


def _replace_dead_actors() -> None:
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from flwr.simulation.ray_transport.ray_actor import ClientAppActor

    from simulation.actor_pool import SteadyActorPool

    actor: Any = ClientAppActor
    actor._default_options["max_restarts"] = RESTARTS
    # Like @ray.method: set for the whole actor, Ray would also retry the call that ends it.
    actor.__ray_metadata__.method_meta.max_task_retries.update(RETRIES)
    module: Any = raybackend
    module.BasicActorPool = SteadyActorPool


def send_the_class_of_actors() -> None:
    """Pickle it by value: by reference each actor imports Flower's simulation, which is a database and a web server."""
    from flwr.simulation.ray_transport import ray_actor

    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(ray_actor)


def _leave_sigterm_to_flower() -> None:
    from ray._private import utils

    module: Any = utils
    module.set_sigterm_handler = lambda handler: None


def _wait_for_every_actor() -> None:
    from flwr.server.superlink.fleet.vce import vce_api

    module: Any = vce_api
    module.ThreadPoolExecutor = partial(ThreadPoolExecutor, THREADS)


def _hand_out_in_one_pass() -> None:
    from flwr.server.superlink.fleet.vce import vce_api

    module: Any = vce_api
    module.add_messages_to_queue = hand_out


def hand_out(state: Any, queue: "Queue[Message]", nodes: Container[int], stop: threading.Event) -> None:
    """Put messages into the queue in the order in which they were sent, until `stop` is set.

    The server waits for replies in the same order, so few of them have to wait in memory for their turn.

    Args:
        state: Flower's `InMemoryLinkState`.
        queue: The actors'.
        nodes: Ids of the simulated nodes.
        stop: Set when the run ends.
    """
    handed_out: set[str] = set()
    while not stop.is_set():
        with state.lock:
            waiting = state.message_ins_store  # by id, in the order of sending
            new = [message_id for message_id in waiting if message_id not in handed_out]
            state._check_stored_messages(set(new))  # deletes those that have expired
            messages = [waiting[message_id] for message_id in new if message_id in waiting]
            handed_out = set(waiting)
        for message in messages:
            if message.metadata.dst_node_id in nodes:
                message.metadata.delivered_at = now().isoformat()
                queue.put(message)
        stop.wait(HAND_OUT_SECONDS)


def _start_ray_closed_and_explain_failures() -> None:
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    backend: Any = RayBackend
    backend.init_ray = starting_in_one_sentence(backend.init_ray)


def _refuse_clients_that_do_not_fit() -> None:
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    backend: Any = RayBackend
    backend.build = building_in_one_sentence(backend.build)


def building_in_one_sentence(build: Callable[..., None]) -> Callable[..., None]:
    """Wrap `RayBackend.build`, which ends in six tracebacks if not even one client fits."""

    @wraps(build)
    def checked(self: Any, app_fn: Any) -> None:
        import ray
        from flwr.supercore.exit import ExitCode, flwr_exit

        try:
            check_request(machines_of(ray.nodes()), share_of(self.client_resources))  # type: ignore[no-untyped-call]
        except ValueError as error:
            flwr_exit(ExitCode.SIMULATION_EXCEPTION, f"The run stopped: {error}")
        build(self, app_fn)

    return checked
