"""A pool of simulation actors that survives the death of a machine of the Ray cluster.

Ray would restart the machine's actors elsewhere if there were room, but every other machine is full of its own. In the
meantime they reject every message, and Flower keeps sending them more.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from logging import WARNING
from typing import Any

import ray
from flwr.app import Context, Message
from flwr.common import log
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from simulation.capacity import clients_at_once, machines_of, share_of
from simulation.out_of_band import copy_out_of_shared_memory

# Ray notices a dead machine after about 20 seconds; an actor on a live machine is back sooner.
PATIENCE_SECONDS = 60.0
READY_SECONDS = 2.0

Job = tuple[Callable[..., Any], Any]


class SteadyActorPool(BasicActorPool):
    """`BasicActorPool` in which another actor takes over from one whose machine is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Like Flower's, which creates actors only on request."""
        super().__init__(*args, **kwargs)
        self.actors_capacity = self._capacity()
        self._jobs: dict[Any, Job] = {}
        self._living: dict[Any, Any] = {}  # by id
        self._lock = threading.Lock()

    def add_actors_to_pool(self, num_actors: int) -> None:
        super().add_actors_to_pool(num_actors)
        self._living = {_id(actor): actor for actor in self.pool}

    def submit(self, actor_fn: Any, job: Any) -> Any:
        future = super().submit(actor_fn, job)
        self._jobs[future] = (actor_fn, job)
        return future

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Context]:
        """Wait for the reply, then return its actor to the pool."""
        actor_fn, job = self._jobs.pop(future)
        result = future
        while True:
            try:
                _, message, context = ray.get(result)
            except (RayActorError, ObjectLostError):
                if (substitute := self._substitute(self._future_to_actor[future])) is None:
                    raise
                self._future_to_actor[future] = substitute
                result = actor_fn(substitute, *job)
            else:
                self.add_actor_back_to_pool(future)
                copy_out_of_shared_memory(message)
                return message, context

    def _substitute(self, actor: Any) -> Any:
        """The actor that takes over from `actor`, which did not answer; None to keep it if its machine is alive."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if _id(actor) not in self._living or self._too_many():
                    if self._living.pop(_id(actor), None):
                        log(WARNING, "A machine of the Ray cluster is gone; actors left: %d.", len(self._living))
                    # An actor may be in the pool several times; its messages then queue.
                    uses = Counter(map(_id, [*self.pool, *self._future_to_actor.values()]))
                    return min(self._living.values(), key=lambda one: uses[_id(one)], default=None)
            if _is_ready(actor):
                return None
        return None

    def _too_many(self) -> bool:
        """Whether the remaining machines are too small for all actors."""
        return self._capacity() < len(self._living)

    def _capacity(self) -> int:
        """Flower adds up GPUs: for two of them it creates five actors of 0.4, of which the last never starts."""
        return clients_at_once(machines_of(ray.nodes()), share_of(self.client_resources))  # type: ignore[no-untyped-call]


def _id(actor: Any) -> Any:
    return actor._actor_id


def _is_ready(actor: Any) -> bool:
    """Whether the actor answers, now or soon."""
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=READY_SECONDS)
    except GetTimeoutError:
        return False
    except RayActorError:
        time.sleep(READY_SECONDS)
        return False
    return True
