"""Who takes part: partitions that fit together, the same code and classes, and the right number per round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from safetensors.numpy import load_file

import task
from client_app.app import app as client_app
from config.run_config import RunConfig
from data.release import open_release
from data.sample import draw_sample
from messages import fingerprint
from server_app.members import Member
from server_app.roll_call import roll_call_messages
from server_app.roll_call_answers import judge
from server_app.startup_log import roll_table
from server_app.stopping import RunStoppedError
from server_app.strategy import make_strategy
from tests.fakes import InProcessGrid, partitions, rounds_of, run_in_process


@pytest.mark.parametrize(
    ("clients", "fraction", "sampled"), [(100, 0.29, 29), (100, 0.05, 5), (7, 1.0, 7), (10, 0.19, 1)]
)
def test_the_fraction_of_clients_is_exact(clients: int, fraction: float, sampled: int) -> None:
    strategy = make_strategy(RunConfig(strategy="fedavg", fraction_train=fraction))
    grid = InProcessGrid(client_app, partitions(clients))
    messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)
    assert len(list(messages)) == sampled


@pytest.fixture
def other_site(tmp_path: Path) -> Path:
    other = tmp_path / "other"
    draw_sample(other, train=48, clean_train=4, val=4, test=4, image_size=32, seed=9)
    return other


def test_sites_with_folders_of_their_own(tmp_path: Path, tiny_sample: Path, other_site: Path) -> None:
    """Nodes without a partition train on all of their own folder; the server evaluates on its own."""
    nodes = [{"data-dir": str(tiny_sample)}, {"data-dir": str(other_site)}]
    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "fraction_train": 1.0, "num_server_rounds": 1}
    run_dir = run_in_process(tmp_path, nodes=nodes, **settings)
    (entry,) = rounds_of(run_dir)
    assert entry["num-examples"] == 120 + 48
    assert entry["sampled-partitions"] in ([0, 1], [1, 0])
    assert entry["failed-partitions"] == []

    # Their numbers depend on what they hold, not on node ids, which change with every SuperLink.
    again = run_in_process(tmp_path, nodes=nodes[::-1], run_name="again", **settings)
    assert rounds_of(again)[0]["confusion-matrix"] == entry["confusion-matrix"]
    one, other = (load_file(folder / "model.safetensors") for folder in (again, run_dir))
    assert {name: value.tobytes() for name, value in one.items()} == {k: v.tobytes() for k, v in other.items()}


def test_each_site_draws_from_its_own_random_stream(
    tmp_path: Path, tiny_sample: Path, other_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def noting(*args: Any) -> Any:
        drawn.append(args)
        return task.derived_generator(*args)

    monkeypatch.setattr("client_app.app.derived_generator", noting)
    nodes = [{"data-dir": str(tiny_sample)}, {"data-dir": str(other_site)}]
    run_in_process(tmp_path, nodes=nodes, data_dir=str(tiny_sample), fraction_train=1.0, num_server_rounds=1)
    assert sorted(drawn) == [(1, "local training", 1, 1), (1, "local training", 1, 2)]


def test_two_nodes_with_the_same_folder_end_the_run(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(RunStoppedError, match=r"nodes \d+ and \d+ hold the same images; give each its own 'data-dir'"):
        run_in_process(tmp_path, nodes=[{}, {}], data_dir=str(tiny_sample))


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (
            [{"partition-id": 0, "num-partitions": 2}, {"partition-id": 0, "num-partitions": 2}],
            "two nodes claim partition 0",
        ),
        (
            [{"partition-id": 0, "num-partitions": 3}, {"partition-id": 2, "num-partitions": 3}],
            "no node holds partition 1",
        ),
        ([{"partition-id": 0, "num-partitions": 2}, {"partition-id": 1, "num-partitions": 3}], "nodes disagree on"),
        ([{"partition-id": 0, "num-partitions": 1}, {}], "some nodes have a 'partition-id' and some have none"),
    ],
)
def test_partitions_that_do_not_fit_together_end_the_run(
    tmp_path: Path, tiny_sample: Path, nodes: Any, sentence: str
) -> None:
    with pytest.raises(RunStoppedError, match=sentence):
        run_in_process(tmp_path, nodes=nodes, data_dir=str(tiny_sample))


def test_parts_of_different_lists_end_the_run(tmp_path: Path, tiny_sample: Path) -> None:
    other = tmp_path / "other"
    draw_sample(other, train=120, clean_train=20, val=12, test=40, image_size=32, seed=6)
    nodes: list[dict[str, Any]] = [
        {"partition-id": 0, "num-partitions": 2},
        {"partition-id": 1, "num-partitions": 2, "data-dir": str(other)},
    ]
    with pytest.raises(RunStoppedError, match="client 0 and client 1 do not hold parts of the same partition"):
        run_in_process(tmp_path, nodes=nodes, data_dir=str(tiny_sample))


def test_the_table_shows_from_which_machines_clients_answered() -> None:
    machines = ["a (10.0.0.1)", "b (10.0.0.2)", "a (10.0.0.1)"]
    members = [Member(i, i, 10, np.array([4, 6]), "cpu", machine=machine) for i, machine in enumerate(machines)]
    *_, first, second = roll_table(members, ("cat", "dog"))
    assert first.split() == ["2", "answered", "from", "a", "(10.0.0.1)"]
    assert second.split() == ["1", "answered", "from", "b", "(10.0.0.2)"]
    assert "answered" not in "".join(roll_table([Member(0, 0, 10, np.array([4, 6]), "cpu")], ("cat", "dog")))


def test_the_table_shows_the_labels_of_sites_with_folders_of_their_own() -> None:
    sites = [
        Member(70 + i, i, 5000, np.array([count, 5000 - count]), "cpu", own_folder=True)
        for i, count in [(0, 7), (1, 1234)]
    ]
    *_, first, second, header, cat, dog = roll_table(sites, ("cat", "dog"))
    assert (first, second) == ("client 0 is node 70", "client 1 is node 71")
    assert header.split() == ["label", "client", "0", "client", "1"]
    assert cat.split() == ["cat", "7", "1,234"]
    assert dog.split() == ["dog", "4,993", "3,766"]
    assert len({len(line) for line in (header, cat, dog)}) == 1


def test_a_client_with_other_code_or_classes_ends_the_run(tmp_path: Path, tiny_sample: Path) -> None:
    def answering(key: str, value: Any) -> Any:
        def handler(message: Message, context: Context) -> Message:
            reply = client_app(message, context)
            reply.content.config_records["about"][key] = value
            if key == "class-names":
                reply.content.metric_records["facts"]["label-histogram"] = [30, 0]
            return reply

        return handler

    with pytest.raises(RunStoppedError, match=r"client 0 runs other code \(deadbeef\) than the server"):
        run_in_process(tmp_path, handler=answering("fingerprint", "deadbeef"), data_dir=str(tiny_sample))
    with pytest.raises(RunStoppedError, match="names 2 classes, and the server has 14; number 1 is 'cat', and not"):
        run_in_process(tmp_path, handler=answering("class-names", ["cat", "dog"]), data_dir=str(tiny_sample))


def test_the_code_is_hashed_once_and_not_for_each_client(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def no_files(root: Path = fingerprint.ROOT) -> list[Path]:
        reads.append(root)
        return []

    monkeypatch.setattr(fingerprint, "code_files", no_files)
    fingerprint.running_code.cache_clear()
    run_in_process(tmp_path, clients=5, data_dir=str(tiny_sample), num_server_rounds=1, model="cnn")
    fingerprint.running_code.cache_clear()
    assert len(reads) == 2  # at the roll call, for both sides, and for config.toml


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("num-examples", 10**12, "has 1000000000000 images, but 30 labels"),
        ("partition-id", 4, "has a 'partition-id' of 4, but 'num-partitions' is 4"),
    ],
)
def test_an_answer_that_contradicts_itself_is_left_out(key: str, value: int, sentence: str, tiny_sample: Path) -> None:
    grid = InProcessGrid(client_app, partitions(4))
    node_ids = sorted(grid.nodes)
    replies = grid.send_and_receive(roll_call_messages(node_ids, RunConfig(data_dir=str(tiny_sample))))
    replies[0].content.metric_records["facts"][key] = value
    members, _, left_out = judge(replies, node_ids, open_release(tiny_sample).class_names)
    assert len(members) == 3
    assert sentence in left_out[0]
