"""The visits that `benchmarks.client.inspection` compares."""

from benchmarks.client.inspection import KINDS, measure
from config.run_config import RunConfig


def test_every_kind_of_visit_is_measured() -> None:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, precision="fp32")
    times = measure(config, images=12, repeats=1)
    assert list(times) == list(KINDS)
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in times.values())
