"""Clients that are groups of the dataset: whole, complete, disjoint, and the same everywhere."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from config.check import examine
from config.check_data import problems_of_data
from config.run_config import RunConfig
from data.__main__ import app
from data.errors import DataError
from data.partition.file import deal
from data.partition.natural import natural
from data.release import Split, open_release, training_split
from tests.fakes import outcome_of, run_in_process

SITES = ("Nord", "Ost", "Süd", "West", "Mitte")


@pytest.fixture
def sites(tiny_sample: Path, tmp_path: Path) -> Path:
    """The sample of 120 noisy images, whose sites have 50, 30, 20, 12 and 8 of them in the list's order."""
    root = tmp_path / "release"
    shutil.copytree(tiny_sample, root)
    keys = (root / "noisy_train_key_list.txt").read_text().split("\n")
    numbers = np.repeat(np.arange(5), [50, 30, 20, 12, 8])
    lines = [f"{key} {number}\n" for key, number in zip(keys, numbers, strict=True)]
    (root / "group_kv.txt").write_text("".join(lines))
    (root / "group_names.txt").write_text("\n".join(SITES), encoding="utf-8")
    return root


def sizes_of(parts: list[np.ndarray]) -> list[int]:
    return [len(part) for part in parts]


def test_as_many_clients_as_groups_hold_one_each_in_their_order(sites: Path) -> None:
    split = open_release(sites).split("noisy_train")
    parts = deal(split, "natural", 5, 1)
    assert [(part[0], part[-1]) for part in parts] == [(0, 49), (50, 79), (80, 99), (100, 111), (112, 119)]
    assert sizes_of(parts) == [50, 30, 20, 12, 8]


@pytest.mark.parametrize(
    ("clients", "groups"),
    [
        (1, [[0, 1, 2, 3, 4]]),
        (2, [[0, 3], [1, 2, 4]]),  # 50 | 30, 20 | then 12 to the first of two that hold 50, 8 to the other
        (3, [[0], [1, 4], [2, 3]]),  # 50 | 30 | 20 + 12 = 32 | then 8 to the one with 30
        (4, [[0], [1], [2], [3, 4]]),
    ],
)
def test_fewer_clients_hold_whole_groups_dealt_largest_first(
    sites: Path, clients: int, groups: list[list[int]]
) -> None:
    split = open_release(sites).split("noisy_train")
    assert split.groups is not None
    for seed in (1, 2):  # no two groups are of one size
        parts = deal(split, "natural", clients, seed)
        assert [np.unique(split.groups[part]).tolist() for part in parts] == groups


def test_the_seed_decides_between_groups_of_one_size() -> None:
    groups = np.repeat(np.arange(12), 3)
    dealt = [[part.tolist() for part in natural(groups, 36, 4, seed)] for seed in (1, 1, 2)]
    assert dealt[0] == dealt[1] != dealt[2]
    assert all(sizes_of(natural(groups, 36, 4, seed)) == [9, 9, 9, 9] for seed in range(5))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_any_groups_are_dealt_whole_completely_and_disjointly(sizes: list[int], data: st.DataObject) -> None:
    clients = data.draw(st.integers(1, len(sizes)))
    seed = data.draw(st.integers(0, 9))
    numbers = data.draw(st.permutations(range(2 * len(sizes))))[: len(sizes)]  # some numbers have no image
    groups = np.random.default_rng(seed).permutation(np.repeat(numbers, sizes)).astype(np.int32)
    parts = natural(groups, len(groups), clients, seed)
    assert len(parts) == clients
    assert min(sizes_of(parts)) >= 1
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    assert sum(len(np.unique(groups[part])) for part in parts) == len(sizes)  # none is in two parts
    again = natural(groups, len(groups), clients, seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))
    best = max(max(sizes), -(-sum(sizes) // clients))  # no deal is more even
    assert max(sizes_of(parts)) <= best + max(sizes)
    if clients == len(sizes):
        assert [int(groups[part[0]]) for part in parts] == sorted(numbers)


def _split(groups: Any) -> Split:
    keys = np.array([f"images/0/00/1,{number}.jpg".encode() for number in range(6)])
    labels = np.zeros(6, np.int32)
    return Split("noisy_train", keys, labels, labels, None if groups is None else np.array(groups, np.int32))


@pytest.mark.parametrize(
    ("groups", "clients", "args", "sentence"),
    [
        (None, 2, {}, "belong to no groups, .* `--group` or `--groups`, .* one of iid, dirichlet, shards, .*, file"),
        ([0, 0, 1, -1, 1, -1], 2, {}, "2 of 6 images belong to no group, and partition 'natural' deals whole groups"),
        ([0, 0, 1, 1, 5, 5], 4, {}, r"belong to 3 groups, .*; it must be at most 3 \(--clients, or num-supernodes\)"),
        ([0, 0, 1, 1, 5, 5], 0, {}, "0 partitions were asked for"),
        ([0, 0, 1, 1, 5, 5], 2, {"min_size": 3}, "'natural' has no argument 'min-size'; it takes none"),
    ],
)
def test_what_cannot_be_dealt_is_one_sentence(groups: Any, clients: int, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        deal(_split(groups), "natural", clients, 1, **args)


def test_a_part_of_the_list_is_dealt_by_the_groups_that_are_in_it(sites: Path) -> None:
    mini = training_split(open_release(sites), "noisy-mini")
    assert mini.groups is not None
    there = np.unique(mini.groups)
    parts = deal(mini, "natural", len(there), 1)
    assert [np.unique(mini.groups[part]).tolist() for part in parts] == [[group] for group in there]
    with pytest.raises(DataError, match="belong to no groups"):
        deal(training_split(open_release(sites), "clean"), "natural", 2, 1)


def test_the_command_shows_it(sites: Path, tiny_sample: Path, tmp_path: Path) -> None:
    line = ["partition", str(sites), "--clients", "5", "--partition", "natural", "--out", str(tmp_path / "p")]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "5 clients hold 120 of 120 images: 8 to 50 each, median 20;" in done.output
    split = open_release(tiny_sample).split("noisy_train")
    assert sizes_of(deal(split, "file", 5, 9, path=str(tmp_path / "p"))) == [50, 30, 20, 12, 8]


def test_a_run_that_cannot_be_dealt_is_refused_before_it_starts(
    sites: Path, tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without a sample

    def problems(clients: int, **values: Any) -> list[str]:
        return problems_of_data(RunConfig(partition="natural", holdout_fraction=0.0, **values), clients)

    assert problems(5, data_dir=str(sites), batch_size=4) == []
    (said,) = problems(6, data_dir=str(sites))
    assert said.startswith(
        "run config: 'partition' is 'natural': 6 partitions were asked for, but these images belong to"
    )
    (said,) = problems(4, data_dir=str(tiny_sample))
    assert "these images belong to no groups" in said
    assert "`--group` or `--groups`" in said
    (said,) = problems(4)
    assert said == "run config: 'partition' is 'natural', but 'data-dir' is empty, and the drawn sample has no groups."
    (said,) = examine({"partition": "natural", "partition-args": "min-size=3"})[1]
    assert "partition scheme 'natural' has no argument 'min-size'; it takes none." in said


def test_two_rounds_train_on_whole_groups(sites: Path, tiny_sample: Path, tmp_path: Path) -> None:
    """The same run as with a file of the same parts; with groups dealt otherwise it is another one."""
    CliRunner().invoke(
        app, ["partition", str(sites), "--clients", "5", "--partition", "natural", "--out", str(tmp_path / "p")]
    )
    more: dict[str, Any] = {
        "num_server_rounds": 2,
        "label_noise": "symmetric",
        "label_noise_args": "rate=0.2",
        "batch_size": 4,
    }
    args = f"path='{tmp_path / 'p'}'"
    ran = run_in_process(tmp_path / "a", clients=5, data_dir=str(sites), partition="natural", **more)
    same = run_in_process(
        tmp_path / "b", clients=5, data_dir=str(tiny_sample), partition="file", partition_args=args, **more
    )
    lines, weights = outcome_of(ran)
    assert lines[-1]["round"] == 2
    assert (lines, weights) == outcome_of(same)
