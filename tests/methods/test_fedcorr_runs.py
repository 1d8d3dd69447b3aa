"""FedCorr in whole runs: eight rounds of three of six clients, of which 1 and 4 are taken for noisy."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from methods.two_groups import Groups
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

SETTINGS: dict[str, Any] = {
    "clients": 6, "method": "fedcorr", "method_args": "confidence=0.0 neighbours=5", "model": "cnn", "image_size": 16,
    "num_server_rounds": 8, "fraction_train": 0.5, "learning_rate": 0.05, "val_split": "none",
}  # fmt: skip


Floats = npt.NDArray[np.float64]


def _groups(values: Floats, errors: Floats, rounds: npt.NDArray[np.int64], least_gap: float) -> Groups:
    """Stands in for `two_groups`, since tiny networks on 20 images tell nothing."""
    assert (values > 0).all()
    assert (errors > 0).all()
    return Groups(np.isin(np.arange(len(values)), (1, 4)), "found")


@pytest.fixture(scope="module")
def judging() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("methods.fedcorr_on_server.two_groups", _groups)
        yield


@pytest.fixture(scope="module")
def undisturbed(judging: None, tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("undisturbed"), data_dir=str(tiny_sample), **SETTINGS)


def test_a_whole_run(undisturbed: Path) -> None:
    lines = rounds_of(undisturbed)
    assert all(line["failed-partitions"] == [] for line in lines)
    sampled = [line["sampled-partitions"] for line in lines]
    for first in (0, 2):
        assert sorted(sampled[first] + sampled[first + 1]) == list(range(6))
    assert not {1, 4} & {*itertools.chain(*sampled[4:6])}
    assert ["noisy-clients" in line for line in lines] == [False] + [True] * 7
    judged = json.loads((undisturbed / "noisy-clients.json").read_text(encoding="utf-8"))
    assert judged["round"] == 2
    assert [client["client"] for client in judged["clients"] if client["noisy"]] == [1, 4]


def test_noisy_clients_alone_change_labels(undisturbed: Path) -> None:
    """They have been visited once more after the first judgement."""
    clients = [json.loads(line) for line in (undisturbed / "clients.jsonl").read_text(encoding="utf-8").splitlines()]
    changed = {line["client"] for line in clients if line["corrected-images"]}
    assert changed
    assert changed <= {1, 4}
    assert {line["client"] for line in clients if line["suspected-images"]} <= {1, 4}


@pytest.mark.parametrize("message", [5, 7, 10, 13, 14, 19, 23])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path, tiny_sample: Path, message: int
) -> None:
    """Three messages a round: before and after the first judgement of stage 1; stages 2 and 3 as they begin, and later.

    Noisy clients change labels in rounds 3 and 4, and once more in stage 3.
    """
    settings = {**SETTINGS, "data_dir": str(tiny_sample), "resume": "auto"}
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=cut_off_in(message), **settings)
    assert len(rounds_of(tmp_path / "run")) == (message - 1) // 3
    assert outcome_of(run_in_process(tmp_path, **settings)) == outcome_of(undisturbed)


@pytest.mark.parametrize("strategy", ["daagg", "fedadam"])
def test_with_another_strategy(judging: None, tmp_path: Path, tiny_sample: Path, strategy: str) -> None:
    changes = {"strategy": strategy, "num_server_rounds": 3, "fraction_train": 1.0}
    lines = rounds_of(run_in_process(tmp_path, data_dir=str(tiny_sample), **{**SETTINGS, **changes}))
    assert [len(line["sampled-partitions"]) for line in lines] == [6, 4, 6]
    assert all(line["failed-partitions"] == [] for line in lines)
