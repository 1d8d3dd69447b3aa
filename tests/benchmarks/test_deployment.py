"""The benchmark of real deployments: both contenders get the same job, and what they report becomes a row."""

import time
from pathlib import Path

import pytest
import torch

from benchmarks.deployment.__main__ import COLUMNS, CONTENDERS, NODES, SEED, Job, Run, draw, measure, row
from benchmarks.tools.plain_app.fedavg import task as stock_task
from benchmarks.tools.processes import arrivals, pairs
from client_app import local_data
from config.run_config import RunConfig
from task import Compute, to_input

JOB = Job("resnet18", rounds=2, images=8, image_size=32, batch_size=4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, JOB)
    return folder


def test_both_contenders_train_on_the_same_images_with_the_same_labels(drawn: Path) -> None:
    config = RunConfig(data_dir=str(drawn / "release"), seed=SEED, image_size=32, batch_size=4, cache_gib=0.0)
    for node in range(NODES):
        site = local_data.Site.resolve({"partition-id": node, "num-partitions": NODES}, config)
        ours = local_data.training_data(site, config)
        loader = stock_task.load_data(drawn, f"client-{node}", size=32, batch_size=8, shuffle=False)
        images, labels = next(iter(loader))
        assert labels.tolist() == ours.labels.tolist()
        pixels = torch.from_numpy(local_data.training_pixels(site, ours, config).whole())
        inputs = to_input(pixels, Compute(torch.device("cpu"), torch.float32), "imagenet")
        one_level = 1 / 255 / 0.224  # Pillow's resize and ours differ by no more
        torch.testing.assert_close(images, inputs, atol=1.01 * one_level, rtol=0)


def test_stock_trains_and_tests(drawn: Path) -> None:
    model = stock_task.build_model("resnet18", 14, seed=1)
    before = model.get_parameter("conv1.weight").detach().clone()
    loader = stock_task.load_data(drawn, "client-0", size=32, batch_size=4, shuffle=True)
    started = time.perf_counter()
    loss, steps, seconds = stock_task.train(model, loader, 1, learning_rate=0.01, momentum=0.9, weight_decay=0.0)
    assert 0 < seconds < time.perf_counter() - started
    assert loss > 0
    assert steps == JOB.images // 4
    assert not torch.equal(model.get_parameter("conv1.weight"), before)
    loss, accuracy = stock_task.test(model, stock_task.load_data(drawn, "test", size=32, batch_size=4, shuffle=False))
    assert loss > 0
    assert 0 <= accuracy <= 1


def test_lines_are_seen_once_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with arrivals(path) as lines, path.open("w") as file:
        for text in ("one\n", "tw", "o\n"):
            whole = time.perf_counter()
            file.write(text)
            file.flush()
            time.sleep(0.1)
    assert [line for _, line in lines] == ["one\n", "two\n"]
    assert lines[1][0] >= whole


def test_a_row_is_medians_over_the_later_rounds_of_all_runs() -> None:
    stock = [Run(rounds=[90.0, 30.0], training=[9.0, 10.0], whole=140.0)]
    ours = [
        Run([50.0, 12.0, 14.0], [9.0, 7.0, 8.0], 100.0, sent=[9_000_000, 4_000_000, 4_000_000], received=[9, 1, 1]),
        Run([60.0, 13.0, 90.0], [9.0, 9.0, 8.0], 120.0, sent=[9_000_000, 4_000_000, 8_000_000], received=[9, 1, 1]),
    ]
    assert row(ours, stock) == [13.5, 8.0, 5.5, 20 / 5.5, 55.0, 110.0, 2.0, 0.5e-6, "5.0 6.0 4.0 82.0"]
    assert row(stock, stock)[-3:] == ["", "", "20.0"]
    assert len(row(ours, None)) == len(COLUMNS) - 1


def test_jobs_that_contenders_would_not_share_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 'batch-size'"):
        Job("resnet18", rounds=2, images=9, image_size=32, batch_size=4)
    with pytest.raises(ValueError, match="at least 2"):
        Job("resnet18", rounds=1, images=8, image_size=32, batch_size=4)


def test_pairs_are_as_flower_takes_them() -> None:
    assert pairs({"a": 1, "b": 0.5, "c": "x y", "d": Path("/e")}) == "a=1 b=0.5 c='x y' d='/e'"


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["stock", "ours"])
def test_a_contender_runs_on_a_real_deployment(name: str, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run of it"
    folder.mkdir()
    run = measure(CONTENDERS[name], JOB, drawn, folder)
    assert len(run.rounds) == len(run.training) == JOB.rounds
    assert all(0 < training < total for training, total in zip(run.training, run.rounds, strict=True))
    assert sum(run.rounds) < run.whole
    assert [len(run.sent), len(run.received)] == ([0, 0] if name == "stock" else [JOB.rounds, JOB.rounds])
