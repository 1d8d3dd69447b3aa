"""The benchmark of scaling: points, the log of a roll call, rows; and the pack that it runs on."""

import logging
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data.repeated import TEST_IMAGES, write_repeated
from benchmarks.scaling import AXES, COLUMNS, Point, Run, measure, roll_call, row
from client_app import local_data
from config.run_config import RunConfig
from data.images.loading import load_images
from data.release import open_release
from tests.fakes import run_in_process


def test_each_axis_varies_one_thing() -> None:
    for name, axis in AXES.items():
        points = axis.points([])
        assert len(points) == 4
        for point in points.values():
            assert {key for key, value in vars(point).items() if value != getattr(axis.base, key)} <= {name}
            assert point.clients <= point.nodes


def test_points_are_chosen_by_their_value() -> None:
    assert AXES["nodes"].points(["10000", "10"]) == {"10": Point(nodes=10), "10,000": Point(nodes=10_000)}
    assert list(AXES["model"].points(["resnet34"])) == ["resnet34"]
    with pytest.raises(ValueError, match=r"'point' is 11; of axis nodes it must be among 10, 100, 1000, 10000\."):
        AXES["nodes"].points(["11"])


def test_the_log_of_a_run_says_how_long_the_roll_call_took(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="flwr"):
        run_in_process(tmp_path, data_dir=str(tiny_sample), num_server_rounds=1, model="cnn")
    whole, first = roll_call(caplog.text)
    assert 0 <= first <= whole < 600
    with pytest.raises(ValueError, match="does not say how long the roll call took:\nnothing"):
        roll_call("nothing")


def _entry(seconds: float, slowest: float, evaluation: float, clients: int) -> dict[str, object]:
    return {
        "seconds": seconds, "slowest-client-seconds": slowest, "evaluation-seconds": evaluation,
        "sampled-partitions": list(range(clients)),
    }  # fmt: skip


def test_a_row_is_medians_of_seconds_and_the_most_memory() -> None:
    first, *later = _entry(9.0, 8.0, 1.0, 4), _entry(3.0, 1.0, 1.0, 4), _entry(5.0, 2.0, 1.0, 4)
    one = Run(10.0, 20.0, 1.0, [first, *later], server=100 << 20, actor=30 << 20, all=300 << 20)
    other = Run(12.0, 22.0, 3.0, [_entry(7.0, 6.0, 1.0, 4), _entry(4.0, 1.0, 1.0, 4)], 90 << 20, 40 << 20, 310 << 20)
    # start, first and other answers, first round, later rounds (3, 5, 4), besides (2, 3, 3), a visit (500, 1000, 750)
    assert row([one, other]) == [11.0, 21.0, 2.0, 8.0, 4.0, 3.0, 750.0, 100, 40, 310]
    assert len(row([one])) == len(COLUMNS)


def test_a_pack_of_few_pictures_has_a_batch_for_every_client(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_repeated(tmp_path / name, 1_000 * 16, 32)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    release = open_release(tmp_path / "one")
    assert len(release.split("clean_test").keys) == TEST_IMAGES
    config = RunConfig(data_dir=str(tmp_path / "one"), image_size=32, batch_size=16)
    for client in (0, 999):
        site = local_data.Site.resolve({"partition-id": client, "num-partitions": 1_000}, config)
        split = local_data.training_data(site, config)
        assert len(split.labels) == 16
        assert len(set(split.labels.tolist())) > 3
        images = load_images(release, split.keys, 32)
        same = [bool((one == other).all()) for one in images for other in images]
        labels = [bool(one == other) for one in split.labels for other in split.labels]
        assert same == labels
    assert np.unique(release.index.keys).size == 16_000 + 3 * TEST_IMAGES


@pytest.mark.e2e
def test_a_point_is_measured(tmp_path: Path) -> None:
    run = measure(Point(nodes=3, clients=3), tmp_path / "run")
    assert [entry["round"] for entry in run.rounds] == [1, 2, 3, 4]
    assert all(len(entry["sampled-partitions"]) == 3 for entry in run.rounds)
    assert min(run.start, run.first_answer) > 0
    assert 100 << 20 < run.actor < run.all
    assert 100 << 20 < run.server < run.all
