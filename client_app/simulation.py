"""Two settings of Ray that Flower's simulation has no way to ask for.

Flower makes plain actors: a dead one goes back into the pool, is picked first from then on and answers every message
with an error. Ray itself can restart an actor and repeat what it was doing, which changes no result, because a
client's reply depends on the message alone.

Ray also takes SIGTERM over when it starts and leaves on it without a word: the run's status then stays "running" until
the SuperLink misses it, and the log does not say how to go on. Flower's own handler, which Ctrl-C reaches, does both.
"""

import sys
from typing import Any

DRIVER = "flwr.simulation.run_simulation"
RESTARTS = -1  # as often as it takes
# A message that kills its actor twice is answered with an error: it would do so again, as one that needs more memory
# than there is.
RETRIES = {"run": 1}


def prepare_simulation() -> None:
    """Change the settings in the process that is about to start Ray; a no-op in every other.

    That process imports the ClientApp first, to see that it can be loaded.
    """
    if DRIVER in sys.modules:
        _replace_dead_actors()
        _leave_sigterm_to_flower()


def _replace_dead_actors() -> None:
    from flwr.simulation.ray_transport.ray_actor import ClientAppActor

    actor: Any = ClientAppActor
    actor._default_options["max_restarts"] = RESTARTS
    # As @ray.method would; for the whole actor, Ray would also retry the call that ends it.
    actor.__ray_metadata__.method_meta.max_task_retries.update(RETRIES)


def _leave_sigterm_to_flower() -> None:
    from ray._private import utils

    module: Any = utils
    module.set_sigterm_handler = lambda handler: None
