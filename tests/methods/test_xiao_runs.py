"""xiao in whole runs: cut off and resumed, with privacy, two classes, labels that are never wrong, other weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.run_config import ConfigError
from data.release import open_release
from server_app.checkpoint_file import load_checkpoint
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process
from tests.methods.test_xiao_on_server import prepared, relabelled

QUICK = "clean-epochs=2 type-epochs=2"
HEAD = "further_heads.noise_types."


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    fixed = {"method": "xiao", "method_args": f"{QUICK} first-stage-rounds=2", "model": "cnn", "image_size": 16}
    return run_in_process(out, data_dir=str(sample), **{**fixed, "num_server_rounds": 4, **changes})


def test_a_whole_run(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = _run(tmp_path, tiny_sample)
    lines = rounds_of(run_dir)
    assert [line["failed-partitions"] for line in lines] == [[]] * 4
    assert all(0 < line["server-loss"] < 10 for line in lines)
    early, late = (
        load_checkpoint(run_dir / "checkpoints" / f"round-0000{number}.safetensors").model for number in (3, 4)
    )
    assert early.keys() >= {f"{HEAD}weight", f"{HEAD}bias"}
    assert not np.array_equal(early[f"{HEAD}bias"], late[f"{HEAD}bias"])


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
@pytest.mark.parametrize("message", [2, 5, 7])
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, strategy: str, message: int
) -> None:
    """In round 1, at the beginning of stage 2, and in the last round."""
    changes = {"strategy": strategy, "augmentation": "crop-flip"}
    expected = outcome_of(_run(tmp_path / "undisturbed", tiny_sample, **changes))
    with pytest.raises(CutOffError):
        _run(tmp_path / "cut", tiny_sample, handler=cut_off_in(message), resume="auto", **changes)
    assert outcome_of(_run(tmp_path / "cut", tiny_sample, resume="auto", **changes)) == expected


def test_with_privacy_since_the_servers_steps_use_its_own_images(tmp_path: Path, tiny_sample: Path) -> None:
    args = "noise-multiplier=0.1 clipping-norm=5.0"
    assert len(rounds_of(_run(tmp_path, tiny_sample, privacy="client-fixed", privacy_args=args))) == 4


def test_compiling_is_refused(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(ConfigError, match="'compile' is true, but 'method' is 'xiao', which looks inside the network"):
        _run(tmp_path, tiny_sample, compile=True)


def test_two_classes(tmp_path: Path, tiny_sample: Path) -> None:
    files = ("noisy_label_kv.txt", "clean_label_kv.txt", "true_label_kv.txt")
    halved = dict.fromkeys(files, lambda key, label: label % 2)
    root = relabelled(tiny_sample, tmp_path / "release", halved, classes=2)
    for line in rounds_of(_run(tmp_path, root, fraction_train=1.0)):
        assert line["failed-partitions"] == []
        assert np.isfinite(line["test-loss"])


def test_labels_that_are_never_wrong(tmp_path: Path, tiny_sample: Path) -> None:
    """Cm is all zeros."""
    release = open_release(tiny_sample)
    right = {
        key.decode(): label
        for name in ("clean_train", "clean_val")
        for key, label in zip(release.split(name).keys, release.split(name).labels, strict=True)
    }
    root = relabelled(
        tiny_sample, tmp_path / "release", {"noisy_label_kv.txt": lambda key, label: right.get(key, label)}
    )
    assert not np.array(prepared(root).tell(0)["confusion"]).any()
    assert all(np.isfinite(line["train-loss"]) for line in rounds_of(_run(tmp_path, root)))


def test_a_run_starts_from_another_methods_weights_and_the_other_way_round(tmp_path: Path, tiny_sample: Path) -> None:
    plain = _run(tmp_path / "plain", tiny_sample, method="ce", method_args="", num_server_rounds=1)
    headed = _run(tmp_path / "headed", tiny_sample, num_server_rounds=1, pretrained=str(plain / "model.safetensors"))
    again = _run(
        tmp_path / "again", tiny_sample, method="ce", method_args="", num_server_rounds=1,
        pretrained=str(headed / "model.safetensors"),
    )  # fmt: skip
    assert len(rounds_of(again)) == 1
