"""A pool of simulation actors that spreads work over GPUs and machines, and survives the death of a machine.

Flower hands out the actor that came back last: of eight GPUs with two actors each, five clients may share three.

Ray would restart a dead machine's actors elsewhere if there were room, but every other machine is full of its own. In
the meantime they reject every message, and Flower keeps sending them more.
"""

import contextlib
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
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError

from simulation.capacity import Share, clients_at_once, machines_of, share_of
from simulation.out_of_band import copy_out_of_shared_memory

# Ray notices a dead machine after about 20 seconds; an actor on a live machine is back sooner.
PATIENCE_SECONDS = 60.0
READY_SECONDS = 2.0

Job = tuple[Callable[..., Any], Any]
Place = tuple[str, tuple[str, ...]]  # a machine, and the GPUs that an actor has there
UNKNOWN: Place = ("", ())


class SteadyActorPool(BasicActorPool):
    """`BasicActorPool` that prefers idle GPUs, and in which another actor takes over from one whose machine is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Like Flower's, which creates actors only on request."""
        super().__init__(*args, **kwargs)
        self.actors_capacity = self._capacity()
        self._jobs: dict[Any, Job] = {}
        self._living: dict[Any, Any] = {}  # by id
        self._places: dict[Any, Place] = {}  # by id, once they are known
        self._asked: dict[Any, Any] = {}  # ids, by future answers
        self._lock = threading.Lock()

    def add_actors_to_pool(self, num_actors: int) -> None:
        super().add_actors_to_pool(num_actors)
        self._living = {_id(actor): actor for actor in self.pool}
        if share_of(self.client_resources).gpus or len(self._machines()) > 1:
            self._asked = {actor.__ray_call__.remote(_finder()): key for key, actor in self._living.items()}

    def submit(self, actor_fn: Any, job: Any) -> Any:
        with self._lock:
            self._note_places()
            actor = self.pool.pop(self._least_burdened())
        future = actor_fn(actor, *job)
        self._future_to_actor[future] = actor
        self._jobs[future] = (actor_fn, job)
        return future

    def _least_burdened(self) -> int:
        """Index of the idle actor whose GPU has the fewest busy ones, then its machine; of equals the first created.

        After the death of a machine an actor may be in the pool several times, and idle and busy at once.
        """
        busy = [_id(actor) for actor in list(self._future_to_actor.values())]
        places = [self._places.get(key, UNKNOWN) for key in busy]
        gpus, machines, actors = Counter(places), Counter(machine for machine, _ in places), Counter(busy)
        order = {key: number for number, key in enumerate(self._living)}

        def burden(index: int) -> tuple[int, int, int, int]:
            key = _id(self.pool[index])
            place = self._places.get(key, UNKNOWN)
            return actors[key], gpus[place], machines[place[0]], order.get(key, len(order))

        return min(range(len(self.pool)), key=burden)  # others may append to the pool meanwhile

    def _note_places(self) -> None:
        """Nobody waits for actors to start: until they answer, they are handed out in order."""
        if self._asked:
            answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for answer in answered:
                key = self._asked.pop(answer)
                with contextlib.suppress(RayError):  # it died
                    self._places[key] = ray.get(answer)

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
        return clients_at_once(self._machines(), share_of(self.client_resources))

    def _machines(self) -> list[Share]:
        return machines_of(ray.nodes())  # type: ignore[no-untyped-call]


def _id(actor: Any) -> Any:
    return actor._actor_id


def _finder() -> Callable[[Any], Place]:
    # A nested function is pickled by value, so the other side needs no import of this app.
    def find(actor: Any) -> Place:
        import ray

        return ray.get_runtime_context().get_node_id(), tuple(map(str, ray.get_gpu_ids()))

    return find


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
