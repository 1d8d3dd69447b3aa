"""Settings that cannot work: one sentence, before anything is computed or written."""

from pathlib import Path
from typing import Any

import pytest

from config.run_config import ConfigError
from data.errors import DataError
from server_app.stopping import RunStoppedError
from tests.fakes import run_in_process


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"method": "magic"}, "'method' is 'magic'; it must be one of ce"),
        (
            {"method_args": "label-smoothing=2"},
            "label-smoothing of ce is 2, and must be a number at least 0",
        ),
        (
            {"partition": "random"},
            "'partition' is 'random'; it must be one of iid, dirichlet",
        ),
        (
            {"partition": "dirichlet", "partition_args": "alpha=-1"},
            "'partition-args' is 'alpha=-1': 'alpha' of",
        ),
        ({"label_noise": "heavy"}, "'label-noise' is 'heavy'; it must be one of none"),
        ({"label_noise": "symmetric", "label_noise_args": "rate=2"}, "'label-noise-args' is 'rate=2': 'rate' of"),
        ({"batch_size": 64}, "'batch-size' is 64, but partition [0-9]+ holds only 30 images"),
        ({"clients": 121}, "121 partitions were asked for, but there are only 120 images"),
        (
            {"clients": 13, "fraction_evaluate": 1.0, "batch_size": 4},
            "'fraction-evaluate' is 1, but clean val has 12 images for 13 clients",
        ),
        ({"data_dir": "/nowhere/clothing1M"}, "/nowhere/clothing1M"),
        ({"strategy_args": "min-train-nodes=x"}, "'strategy-args' is 'min-train-nodes=x'"),
        ({"pretrained": "/nowhere/weights.pt"}, "there is no such file"),
        ({"image_size": 5}, "'image-size' is 5"),
    ],
)
def test_bad_settings_end_the_run_before_it_starts(
    tmp_path: Path, tiny_sample: Path, overrides: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ConfigError, DataError, RunStoppedError), match=sentence) as caught:
        run_in_process(tmp_path, **{"data_dir": str(tiny_sample), **overrides})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_never_overwritten(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), num_server_rounds=1)
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"'run-name' is 'run', but .*run already exists; choose another name"):
        run_in_process(tmp_path, data_dir=str(tiny_sample), num_server_rounds=1)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_an_output_folder_that_cannot_be_created_is_named(tmp_path: Path, tiny_sample: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ConfigError, match=r"'output-dir' is '.*file"):
        run_in_process(blocked, data_dir=str(tiny_sample))
