"""`noisy-clients.json`: all clients, whom the method takes for noisy, and who is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.proto.node_pb2 import NodeInfo

from learning.server_half import ServerHalf
from server_app.callbacks import History
from server_app.callbacks.noisy_clients_file import NoisyClientsFile, read_noisy_clients
from server_app.members import Member
from server_app.node_names import forget, remember
from server_app.rounds import judgement, scores_of
from tests.fakes import CutOffError, cut_off_in, rounds_of, run_in_process
from tests.server_app.test_callbacks import _result

FILE = "noisy-clients.json"
MEMBERS = [Member(70_000 + k, k, 100 + k, np.zeros(14, np.int64), "cpu") for k in range(3)]
SETTINGS: dict[str, Any] = {
    "model": "cnn", "image_size": 16, "method": "fednoro", "method_args": "warm-up-rounds=1 least-gap=0",
    "num_server_rounds": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_names() -> Iterator[None]:
    forget()
    yield
    forget()


def _write(path: Path, last_round: int = 0) -> NoisyClientsFile:
    callback = NoisyClientsFile(path, MEMBERS)
    callback.on_start(History(last_round))
    return callback


def _judged(server_round: int, noisy: dict[int, bool] | None, **more: Any) -> Any:
    return replace(_result(server_round), noisy_clients=noisy, **more)


def test_all_clients_are_listed_with_the_truth_where_it_is_known(tmp_path: Path) -> None:
    remember([NodeInfo(node_id=70_001, name='site "b"\n\x1b[31m')])
    callback = _write(tmp_path / FILE)
    callback.after_round(_judged(1, None))
    assert not (tmp_path / FILE).exists()
    truth = {"truly_noisy": {0: False, 1: True}, "wrong_labels": {1: 0.75, 0: 0.25}}
    callback.after_round(_judged(2, {0: True, 1: True}, **truth))
    values = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    name = values["clients"][1].pop("node")
    assert name.startswith('site "b"')
    assert name.isprintable()
    assert values == {
        "round": 2,
        "clients": [
            {"client": 0, "node": None, "images": 100, "noisy": True, "really-noisy": False, "wrong-labels": 0.25},
            {"client": 1, "images": 101, "noisy": True, "really-noisy": True, "wrong-labels": 0.75},
            {"client": 2, "node": None, "images": 102, "noisy": None, "really-noisy": None, "wrong-labels": None},
        ],
    }


def test_it_is_written_again_only_when_the_method_judges_otherwise(tmp_path: Path) -> None:
    path, callback = tmp_path / FILE, _write(tmp_path / FILE)
    for server_round, noisy in ((2, True), (3, True), (4, False), (5, False)):
        callback.after_round(_judged(server_round, {0: noisy}))
        found = read_noisy_clients(path)
        assert found is not None
        assert found["round"] == (2 if noisy else 4)
    _write(path, last_round=5).after_round(_judged(6, {0: False}))
    assert json.loads(path.read_text())["round"] == 4
    path.unlink()
    _write(path, last_round=6).after_round(_judged(7, {0: False}))
    assert json.loads(path.read_text())["round"] == 7


def test_a_site_that_is_away_keeps_its_name_and_the_judgement_its_round(tmp_path: Path) -> None:
    path = tmp_path / FILE
    remember([NodeInfo(node_id=70_000 + number, name=name) for number, name in enumerate(("north", "south"))])
    _write(path).after_round(_judged(2, {0: True}))
    written = path.read_bytes()
    forget()
    remember([NodeInfo(node_id=80_000, name="north again")])
    members = [replace(MEMBERS[0], node_id=80_000), replace(MEMBERS[1], node_id=-2), MEMBERS[2]]
    callback = NoisyClientsFile(path, members)
    callback.on_start(History(4))
    callback.after_round(_judged(5, {0: True}))
    assert path.read_bytes() == written
    callback.after_round(_judged(6, {0: False}))
    found = read_noisy_clients(path)
    assert found is not None
    assert found["round"] == 6
    assert [one["node"] for one in found["clients"]] == ["north again", "south", None]


@pytest.mark.parametrize(
    "damaged", [b"x", b"[]", b"{}", b'{"round": "2", "clients": []}', b'{"round": 2, "clients": [3]}']
)
def test_a_damaged_file_is_set_aside_and_written_anew(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / FILE).write_bytes(damaged)
    callback = _write(tmp_path / FILE, last_round=2)
    assert (tmp_path / "set-aside" / f"{FILE}.1").read_bytes() == damaged
    callback.after_round(_judged(3, {0: True}))
    assert json.loads((tmp_path / FILE).read_text())["round"] == 3


def test_the_truth_is_known_if_it_is_for_all_who_were_judged() -> None:
    class Half(ServerHalf):
        def noisy_clients(self) -> dict[int, bool]:
            return {3: True, 1: False, 2: False}

        def wrong_labels(self) -> dict[int, float]:
            return shares

    shares = {1: 0.1, 2: 0.5, 3: 0.4}
    assert judgement(Half())["truly_noisy"] == {1: False, 2: True, 3: True}
    shares = {1: 0.1, 2: 0.5}
    assert judgement(Half()) == {
        "noisy_clients": {3: True, 1: False, 2: False},
        "truly_noisy": None,
        "wrong_labels": shares,
    }
    assert judgement(ServerHalf()) == {"noisy_clients": None, "truly_noisy": None, "wrong_labels": {}}


def test_every_half_that_judges_is_scored_in_the_round_s_line() -> None:
    """Found are 0 and 3; above the midpoint 0.3 of 0.0 and 0.6 are 1 and 3. Client 7 was not judged."""

    class Half(ServerHalf):
        def noisy_clients(self) -> dict[int, bool]:
            return {0: True, 1: False, 2: False, 3: True}

        def wrong_labels(self) -> dict[int, float]:
            return {0: 0.1, 1: 0.6, 2: 0.0, 3: 0.5, 7: 1.0} if known else {}

    known = True
    assert scores_of(judgement(Half())) == {
        "noisy-clients": 2.0, "noisy-clients-precision": 0.5, "noisy-clients-recall": 0.5
    }  # fmt: skip
    known = False
    assert scores_of(judgement(Half())) == {"noisy-clients": 2.0}
    assert scores_of(judgement(ServerHalf())) == {}


@pytest.mark.parametrize("message", [0, 3, 5, 6])  # of two in each round; 0: none
def test_a_run_lists_its_clients_and_one_that_is_cut_off_lists_the_same(
    tmp_path: Path, tiny_sample: Path, message: int
) -> None:
    if message:
        with pytest.raises(CutOffError):
            run_in_process(tmp_path, data_dir=str(tiny_sample), handler=cut_off_in(message), **SETTINGS)
    run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), resume="auto", **SETTINGS)
    found = read_noisy_clients(run_dir / FILE)
    assert found is not None
    assert found["round"] == 2
    clients = found["clients"]
    assert [one["client"] for one in clients] == [0, 1, 2, 3]
    assert [one["images"] for one in clients] == [30] * 4
    assert all(0 < one["wrong-labels"] < 1 for one in clients)
    last = rounds_of(run_dir)[-1]
    assert last["noisy-clients"] == sum(one["noisy"] for one in clients)
    really = sum(one["really-noisy"] for one in clients)
    assert ("noisy-clients-recall" in last) == bool(really)


def test_a_method_that_judges_nobody_leaves_no_file(tmp_path: Path, tiny_sample: Path) -> None:
    settings = {**SETTINGS, "method_args": "warm-up-rounds=1 clients='all-noisy'"}
    run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), **settings)
    assert not (run_dir / FILE).exists()
