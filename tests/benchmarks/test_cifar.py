"""The made CIFAR-10 is one, and its import is timed."""

import pickle
from pathlib import Path

import numpy as np

from benchmarks.data.cifar import imports
from data.release import open_release


def test_a_made_cifar10_is_imported(tmp_path: Path) -> None:
    rows = imports(tmp_path, 50)
    assert [name for name, _ in rows] == [
        "reading the folder", "reading the .tar.gz", "writing a folder", "writing a pack"
    ]  # fmt: skip
    assert all(seconds > 0 for _, seconds in rows)
    folder, pack = open_release(tmp_path / "release"), open_release(tmp_path / "cifar10.pack")
    assert len(folder.split("noisy_train").keys) == len(pack.split("noisy_train").keys) == 50
    batch = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_2").read_bytes(), encoding="bytes")
    assert sorted(batch) == [b"batch_label", b"data", b"filenames", b"labels"]
    assert batch[b"data"].shape == (10, 3072)
    assert batch[b"data"].dtype == np.uint8
    assert sorted(batch[b"labels"]) == list(range(10))
