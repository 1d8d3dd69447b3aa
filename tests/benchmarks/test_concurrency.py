"""The benchmark of clients at once runs, at the smallest size; nothing here is timed."""

from benchmarks.client.concurrency import COLUMNS, measure
from config.run_config import RunConfig
from probe.recommendation import Hardware


def test_every_number_of_clients_fills_a_row() -> None:
    config = RunConfig(model="resnet18", image_size=32, stem="imagenet", batch_size=2, precision="fp32")
    rows = measure(config, [1, 2], steps=1, repeats=2, hardware=Hardware(2, 1 << 40), images=2)
    assert [row[:3] for row in rows] == [(1, 2, 0), (2, 1, 0)]
    assert all(len(row) == len(COLUMNS) for row in rows)
    for _, _, _, middle, _, slowest, fastest, peak in rows:
        assert 0 < slowest <= middle <= fastest
        assert peak > 100
    assert rows[0][4] == 1
