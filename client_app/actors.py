"""Ray actors that come back after they were killed or ran out of memory.

Flower's simulation makes plain actors: a dead one goes back into the pool, is picked first from then on and answers
every message with an error. Ray itself can restart an actor and repeat what it was doing, which changes no result,
because a client's reply depends on the message alone. Flower has no setting for it.
"""

import sys
from typing import Any

DRIVER = "flwr.simulation.run_simulation"
RESTARTS = -1  # as often as it takes
# A message that kills its actor twice is answered with an error: it would do so again, as one that needs more memory
# than there is.
RETRIES = {"run": 1}


def replace_dead_actors() -> None:
    """Set Ray's options for the actors that Flower makes; a no-op but in the process that is about to make them.

    That process imports the ClientApp first, to see that it can be loaded.
    """
    if DRIVER in sys.modules:
        from flwr.simulation.ray_transport.ray_actor import ClientAppActor

        actor: Any = ClientAppActor
        actor._default_options["max_restarts"] = RESTARTS
        # As @ray.method would; for the whole actor, Ray would also retry the call that ends it.
        actor.__ray_metadata__.method_meta.max_task_retries.update(RETRIES)
