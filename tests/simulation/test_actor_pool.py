"""Actors whose machine dies: the remaining ones take over their messages."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from simulation import actor_pool
from simulation.actor_pool import SteadyActorPool


@dataclass(eq=False)
class Actor:
    """A Ray actor, as far as the pool knows one. One that restarts rejects the first call after its death."""

    _actor_id: int
    lives: bool = True
    restarts: bool = False

    @property
    def __ray_ready__(self) -> Any:
        return SimpleNamespace(remote=lambda: Future(self, ""))

    @property
    def __ray_call__(self) -> Any:
        return SimpleNamespace(remote=lambda function: Future(self, ""))


@dataclass(eq=False)
class Future:
    actor: Actor
    message: Any


class Cluster:
    """Creates actors, and has room for `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.actors: list[Actor] = []

    def options(self, **resources: float) -> Any:
        return SimpleNamespace(remote=self._add)

    def _add(self) -> Actor:
        self.actors.append(Actor(len(self.actors)))
        return self.actors[-1]

    @staticmethod
    def get(future: Future, timeout: float | None = None) -> Any:
        if not future.actor.lives:
            future.actor.lives = future.actor.restarts
            raise RayActorError
        return "cid", f"{future.message} by {future.actor._actor_id}", "context"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(capacity=3)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Resources": {"CPU": cluster.capacity}}, {"Resources": {}}])
    monkeypatch.setattr(ray, "get", cluster.get)
    monkeypatch.setattr(actor_pool, "copy_out_of_shared_memory", lambda message: None)
    monkeypatch.setattr(actor_pool, "READY_SECONDS", 0.01)
    monkeypatch.setattr(actor_pool, "PATIENCE_SECONDS", 0.1)
    return cluster


@pytest.fixture
def pool(cluster: Cluster) -> Any:
    pool: Any = SteadyActorPool(cluster, {"num_cpus": 1}, {})
    pool.add_actors_to_pool(pool.actors_capacity)
    return pool


def _submit(pool: Any, *messages: str) -> list[Future]:
    def run(actor: Actor, app: str, message: str, cid: str, context: str) -> Future:
        return Future(actor, message)

    return [pool.submit(run, ("app", message, "cid", "context")) for message in messages]


def _fetch(pool: Any, future: Future) -> Any:
    return pool.fetch_result_and_return_actor_to_pool(future)[0]


def test_remaining_actors_take_over_from_those_of_a_dead_machine(cluster: Cluster, pool: Any) -> None:
    futures = _submit(pool, "a", "b", "c")
    cluster.actors[2].lives = cluster.actors[1].lives = False
    cluster.capacity = 1
    assert [_fetch(pool, future) for future in futures] == ["a by 0", "b by 0", "c by 0"]
    assert pool.pool == [cluster.actors[0]] * 3  # one for each thread that asks for one
    futures = _submit(pool, "d", "e", "f")
    assert [_fetch(pool, future) for future in futures] == ["d by 0", "e by 0", "f by 0"]


def test_remaining_actors_share_the_work(cluster: Cluster, pool: Any) -> None:
    (future,) = _submit(pool, "a")
    cluster.actors[0].lives, cluster.capacity = False, 2
    _fetch(pool, future)
    assert sorted(actor._actor_id for actor in pool.pool) in ([1, 1, 2], [1, 2, 2])


def test_an_actor_that_restarts_on_its_machine_stays(cluster: Cluster, pool: Any) -> None:
    """Its message still gets an error reply: it may be what killed the actor."""
    (future,) = _submit(pool, "a")
    cluster.actors[0].lives, cluster.actors[0].restarts = False, True
    with pytest.raises(RayActorError):
        _fetch(pool, future)
    pool.add_actor_back_to_pool(future)  # as Flower does then
    assert [_fetch(pool, future) for future in _submit(pool, "a")] == ["a by 0"]


def test_no_actor_is_left(cluster: Cluster, pool: Any) -> None:
    cluster.capacity = 0
    (future,) = _submit(pool, "a")
    for actor in cluster.actors:
        actor.lives = False
    with pytest.raises(RayActorError):
        _fetch(pool, future)


def test_fractions_of_two_gpus_do_not_make_a_third(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five actors, the last would wait for a GPU forever, and so would its caller."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Resources": {"CPU": 8.0, "GPU": 2.0}}])
    pool: Any = SteadyActorPool(cluster, {"num_cpus": 1, "num_gpus": 0.4}, {})
    assert pool.actors_capacity == 4


MACHINE = {"Resources": {"CPU": 16.0, "GPU": 4.0}}


def _spread(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, machines: int, num_gpus: float, started: bool = True
) -> Any:
    """A pool whose actors fill one GPU after the other, and so one machine after the other."""
    monkeypatch.setattr(ray, "nodes", lambda: [MACHINE] * machines)
    monkeypatch.setattr(ray, "wait", lambda futures, num_returns, timeout: (futures if started else [], []))
    pool: Any = SteadyActorPool(cluster, {"num_cpus": 1, "num_gpus": num_gpus}, {})
    pool.add_actors_to_pool(pool.actors_capacity)
    on_each = round(1 / num_gpus)
    for answer, key in pool._asked.items():
        machine, gpu = divmod(key // on_each, 4)
        answer.message = (f"machine {machine}", (str(gpu),))
    monkeypatch.setattr(ray, "get", lambda answer: answer.message)
    return pool


def _taken(pool: Any, count: int) -> list[int]:
    return [pool._future_to_actor[future]._actor_id for future in _submit(pool, *map(str, range(count)))]


@pytest.mark.parametrize(
    ("machines", "num_gpus", "actors"),
    [
        (1, 0.5, [0, 2, 4, 6, 1, 3]),  # each GPU once, then again in the same order
        (2, 0.5, [0, 8, 2, 10, 4, 12, 6, 14, 1, 9]),  # machines in turn
        (1, 1.0, [0, 1, 2, 3]),
    ],
)
def test_clients_are_spread_over_gpus_and_machines(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, machines: int, num_gpus: float, actors: list[int]
) -> None:
    assert _taken(_spread(cluster, monkeypatch, machines, num_gpus), len(actors)) == actors


def test_an_actor_that_comes_back_meanwhile_is_no_error(cluster: Cluster, pool: Any) -> None:
    """Threads that wait for replies put actors back while another one chooses."""
    futures = _submit(pool, "a", "b")

    class Growing(list[Actor]):
        def __getitem__(self, index: Any) -> Any:
            if futures:
                pool.add_actor_back_to_pool(futures.pop())
            return super().__getitem__(index)

    pool.pool = Growing(pool.pool)
    (future,) = _submit(pool, "c")
    assert _fetch(pool, future) == "c by 2"
    assert len(pool.pool) == 2 + 1 - len(futures)


def test_an_actor_that_is_in_the_pool_twice_gets_one_message_while_others_are_idle(cluster: Cluster, pool: Any) -> None:
    pool.pool.append(cluster.actors[0])
    assert _taken(pool, 4) == [0, 1, 2, 0]


def test_the_gpu_that_is_free_again_is_next(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _spread(cluster, monkeypatch, 1, 0.5)
    futures = _submit(pool, "a", "b", "c", "d")
    pool.add_actor_back_to_pool(futures[2])
    assert _taken(pool, 2) == [4, 1]


def test_nobody_waits_for_actors_that_still_start(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _spread(cluster, monkeypatch, 1, 0.5, started=False)
    assert _taken(pool, 3) == [0, 1, 2]


def test_an_actor_that_died_before_it_answered_is_handed_out(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _spread(cluster, monkeypatch, 1, 1.0)

    def get(answer: Future) -> Any:
        if answer.actor._actor_id == 0:
            raise RayActorError
        return answer.message

    monkeypatch.setattr(ray, "get", get)
    assert sorted(_taken(pool, 4)) == [0, 1, 2, 3]


def test_one_machine_without_gpus_asks_no_actor(cluster: Cluster, pool: Any) -> None:
    assert pool._asked == {}
    assert _taken(pool, 3) == [0, 1, 2]
