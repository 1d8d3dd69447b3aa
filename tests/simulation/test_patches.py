"""Clients that do not fit, handing out messages, and where the patches apply."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from flwr.app import Message, MessageType, RecordDict
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from simulation import patches


def test_clients_that_do_not_fit_end_the_run_before_there_is_a_pool(
    monkeypatch: pytest.MonkeyPatch, ended: list[str]
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Resources": {"CPU": 2.0}}])
    built: list[Any] = []
    build = patches.building_in_one_sentence(lambda backend, app_fn: built.append(app_fn))
    with pytest.raises(SystemExit):
        build(SimpleNamespace(client_resources={"num_cpus": 64, "num_gpus": 0.0}), "app")
    assert built == []
    assert ended[0].startswith("The run stopped: --federation-config: each client requests 64 CPUs and no GPU, but")
    build(SimpleNamespace(client_resources={"num_cpus": 2, "num_gpus": 0.0}), "app")
    assert built == ["app"]


IMPORTED = """
import pickle, sys
import ray
actor = pickle.load(sys.stdin.buffer)
assert hasattr(actor, "run")
heavy = ("flwr.simulation", "fastapi", "sqlalchemy", "alembic")
print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("by_value", [True, False])
def test_an_actor_imports_no_web_server_and_no_database(by_value: bool) -> None:
    """Left to itself it would: without that, there was nothing to mend."""
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    module: Any = importlib.import_module("flwr.simulation.ray_transport.ray_actor")
    if by_value:
        patches.send_the_class_of_actors()
    try:
        pickled = cloudpickle.dumps(module.ClientAppActor.__ray_metadata__.modified_class)
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    done = subprocess.run([sys.executable, "-c", IMPORTED], input=pickled, capture_output=True, check=True)
    imported = ["flwr.simulation", "fastapi", "sqlalchemy", "alembic"]
    assert done.stdout.decode().strip() == str([] if by_value else imported)


class Federation:
    """Flower's simulation without its actors: nodes, a grid, and how often messages in its state were scanned."""

    def __init__(self, nodes: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        state: Any = factory.state()
        self.state = state
        run = replace(Run.create_empty(1), primary_task_id=1, federation_id=NOOP_FEDERATION_ID)
        self.state.run_ids[1] = RunRecord(run=run)
        self.state.task_store[1] = Task(task_id=1, run_id=1)
        self.nodes = vce_api._register_nodes(nodes, factory)
        self.grid = InMemoryGrid(factory)
        self.grid.set_run(run)
        self.scanned = 0
        check = self.state._check_stored_messages

        def counting(message_ids: set[str], *args: Any) -> None:
            self.scanned += len(message_ids)
            check(message_ids, *args)

        self.state._check_stored_messages = counting

    def send(self, node_ids: list[int], ttl: float = 60.0) -> list[str]:
        return list(
            self.grid.push_messages([Message(RecordDict(), node, MessageType.QUERY, ttl=ttl) for node in node_ids])
        )

    def hand_out(self, how: Callable[..., None], passes: int, between: Callable[[], Any] = lambda: None) -> list[str]:
        """Ids of the messages that reach the actors within `passes`."""

        class Stop:
            left = passes

            def is_set(self) -> bool:
                return self.left == 0

            def wait(self, _: float) -> None:
                self.left -= 1
                between()

        queue: Queue[Message] = Queue()
        how(self.state, queue, self.nodes, Stop())
        return [queue.get().metadata.message_id for _ in range(queue.qsize())]


def test_messages_are_handed_out_once_in_the_order_of_sending() -> None:
    federation = Federation(5)
    order = list(federation.nodes)[::-1]
    sent = federation.send([*order, order[0]])
    more: list[str] = []
    assert federation.hand_out(patches.hand_out, 3, lambda: more.extend(federation.send(order[:2]))) == sent + more[:4]
    delivered = [message.metadata.delivered_at != "" for message in federation.state.message_ins_store.values()]
    assert delivered == [True] * 10 + [False] * 2  # the last pass was before the last ones


def test_expired_messages_and_those_to_unknown_nodes_are_not_handed_out() -> None:
    federation = Federation(3)
    gone, *others = federation.nodes
    federation.send([gone])
    federation.send(others[:1], ttl=1e-9)
    kept = federation.send(others[1:])
    del federation.nodes[gone]
    assert federation.hand_out(patches.hand_out, 2) == kept
    assert len(federation.state.message_ins_store) == 2  # the expired one is deleted, as by Flower


def test_each_message_is_scanned_once_and_not_once_per_node() -> None:
    scanned = {}
    for name, how in {"ours": patches.hand_out, "Flower's": vce_api.add_messages_to_queue}.items():
        federation = Federation(40)
        sent = federation.send(list(federation.nodes))
        federation.scanned = 0
        assert sorted(federation.hand_out(how, 2)) == sorted(sent)
        scanned[name] = federation.scanned
    assert scanned["ours"] == 40
    assert scanned["Flower's"] == sum(range(1, 41)) + 40 * 40  # if this fails, Flower may no longer need the patch


@pytest.mark.parametrize(
    ("modules", "initialized", "calls"), [((), True, 1), ((patches.DRIVER,), False, 1), ((), False, 0)]
)
def test_only_driver_and_actors_leave_arrays_out_of_pickles(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], initialized: bool, calls: int
) -> None:
    called: list[int] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: initialized))
    monkeypatch.delitem(sys.modules, patches.DRIVER, raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    for name in [name for name in vars(patches) if name.startswith("_") and callable(getattr(patches, name))]:
        monkeypatch.setattr(patches, name, lambda: None)
    monkeypatch.setattr(patches, "leave_arrays_out_of_pickles", lambda: called.append(1))
    patches.prepare_simulation()
    assert len(called) == calls
