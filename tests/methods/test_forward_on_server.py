"""The server half of forward: which matrix clients are told, and when it would not fit their labels."""

from pathlib import Path

import numpy as np
import pytest

from config.run_config import ConfigError, RunConfig
from data.noise.published import CONFUSION
from data.release import open_release
from methods import build_method
from tests.fakes import rounds_of, run_in_process


def _told(sample: Path, args: str, **values: object) -> np.ndarray:
    config = RunConfig(method="forward", method_args=args, **values)  # type: ignore[arg-type]
    half = build_method(config).on_server()
    half.prepare(config, open_release(sample))
    return np.array(half.tell(3)["transition"]).reshape(14, 14)


def test_clients_are_told_the_matrix_row_by_row(tiny_sample: Path) -> None:
    matrix = _told(tiny_sample, "transition='clothing1m' smoothing=0.0")
    np.testing.assert_allclose(matrix, CONFUSION / CONFUSION.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(_told(tiny_sample, "").sum(axis=1), 1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"train_split": "clean"}, "'train-split' is 'clean' and 'label-noise' 'none'"),
        (
            {"label_noise": "symmetric", "label_noise_args": "rate=0.4"},
            "'label-noise' 'symmetric' changes labels on top",
        ),
    ],
)
def test_a_matrix_of_other_labels_is_refused(
    tiny_sample: Path, tmp_path: Path, values: dict[str, object], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        _told(tiny_sample, "", **values)
    path = tmp_path / "matrix.txt"
    np.savetxt(path, np.eye(14) * 0.6 + 0.4 / 14)
    matrix = _told(tiny_sample, f"transition='{path}'", **values)
    np.testing.assert_allclose(matrix, np.eye(14) * 0.6 + 0.4 / 14, atol=1e-12)


def test_clean_train_under_the_published_noise_has_the_published_matrix(tiny_sample: Path) -> None:
    _told(tiny_sample, "transition='clothing1m'", train_split="clean", label_noise="confusion")


def test_a_whole_run(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), method="forward", model="cnn", image_size=16)
    assert len(rounds_of(run_dir)) == 2
