"""`python -m client_app.corrected_labels`: corrected labels as a label file that can be trained on."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from client_app.client_state import ClientState
from client_app.corrected_labels import read_corrected, write_labels
from data.errors import DataError
from data.layout.key_files import read_labels
from data.release import open_release
from tests.fakes import run_in_process

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_dir(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of fedelc whose clients change some labels."""
    return run_in_process(
        tmp_path_factory.mktemp("fedelc"), data_dir=str(tiny_sample), method="fedelc", model="cnn", image_size=16,
        method_args="clients='all-noisy' warm-up-rounds=1 label-rate=100000.0", num_server_rounds=3, fraction_train=1.0,
        local_epochs=4, learning_rate=0.1,
    )  # fmt: skip


def test_the_command_writes_a_release_that_can_be_trained_on(run_dir: Path, tiny_sample: Path, tmp_path: Path) -> None:
    out, noisy = tmp_path / "labels.txt", tiny_sample / "noisy_label_kv.txt"
    done = subprocess.run(
        [sys.executable, "-m", "client_app.corrected_labels", str(run_dir), str(out), "--base", str(noisy)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    corrected = read_corrected(run_dir)
    changed = int((corrected.given != corrected.believed).sum())
    assert 0 < changed < 120
    lines = len(noisy.read_text().splitlines())
    assert " ".join(done.stdout.split()).startswith(
        f"4 clients judged 120 images and corrected the label of {changed}; wrote {lines} lines to"
    )

    release = tmp_path / "release"
    shutil.copytree(tiny_sample, release, copy_function=lambda src, dst: Path(dst).symlink_to(src))
    (release / "noisy_label_kv.txt").unlink()
    shutil.copy(out, release / "noisy_label_kv.txt")
    before, after = (open_release(root).split("noisy_train") for root in (tiny_sample, release))
    assert (before.labels != after.labels).sum() == changed
    believed = dict(zip(corrected.keys.tolist(), corrected.believed.tolist(), strict=True))
    assert [believed[key] for key in after.keys.tolist()] == after.labels.tolist()


@pytest.mark.parametrize(
    ("method", "args"),
    [("selfie", "warm-up-rounds=0 history=1"), ("joint-optimization", "warm-up-rounds=0 labels='hard'")],
)
def test_labels_that_later_visits_are_trained_on_are_exported(
    tiny_sample: Path, tmp_path: Path, method: str, args: str
) -> None:
    run_dir = run_in_process(
        tmp_path, data_dir=str(tiny_sample), method=method, method_args=args, model="cnn", image_size=16,
        num_server_rounds=2, fraction_train=1.0,
    )  # fmt: skip
    corrected = read_corrected(run_dir)
    assert (corrected.given != corrected.believed).any()
    given = dict(zip(*(part.tolist() for part in _noisy_train(tiny_sample)), strict=True))
    assert [given[key] for key in corrected.keys.tolist()] == corrected.given.tolist()
    assert write_labels(corrected, tmp_path / "labels.txt") == len(given)


def _noisy_train(root: Path) -> tuple[np.ndarray, np.ndarray]:
    split = open_release(root).split("noisy_train")
    return split.keys, split.labels


def test_without_a_base_only_judged_images_are_written(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.txt"
    assert write_labels(read_corrected(run_dir), out) == 120
    keys, labels = read_labels(out, 14)
    corrected = read_corrected(run_dir)
    assert keys.tolist() == corrected.keys.tolist()
    assert labels.tolist() == corrected.believed.tolist()


def test_the_bases_other_lines_are_kept(run_dir: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.txt"
    first = read_corrected(run_dir).keys[0].decode()
    base.write_text(f"images/9/99/9,9.jpg 3\n{first} 13\nimages/0/00/0,0.jpg 5\n")
    out = tmp_path / "out.txt"
    write_labels(read_corrected(run_dir), out, base)
    believed = read_corrected(run_dir).believed[0]
    assert out.read_text() == f"images/9/99/9,9.jpg 3\n{first} {believed}\nimages/0/00/0,0.jpg 5\n"


def test_what_cannot_be_read_or_written_is_reported_in_one_sentence(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no clients' state; it must be a run's folder"):
        read_corrected(tmp_path)
    out = tmp_path / "there.txt"
    out.write_text("x")
    with pytest.raises(DataError, match=r"there.txt already exists"):
        write_labels(read_corrected(run_dir), out)
    with pytest.raises(DataError, match=r"cannot be written: No such file"):
        write_labels(read_corrected(run_dir), tmp_path / "nowhere" / "out.txt")
    for run in ("one", "two"):
        ClientState(tmp_path / "states" / run / "client-00000", "d").save(
            1, {}, np.array([b"images/1"]), torch.tensor([1]), None
        )
    with pytest.raises(DataError, match="has clients of the runs one, two; it must be the folder of one"):
        read_corrected(tmp_path / "states")
    with pytest.raises(DataError, match="clients' state without corrected labels"):
        read_corrected(tmp_path / "states" / "one")
    (tmp_path / "states" / "one" / "client-00000" / "round-00001.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match=r"round-00001.safetensors cannot be read .* no other state that is valid"):
        read_corrected(tmp_path / "states" / "one")


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ClientState(tmp_path / "run" / "client-00000", "d")
    for server_round, label in ((1, 3), (2, 4)):
        state.save(server_round, {}, np.array([b"images/1"]), torch.tensor([1]), torch.tensor([label]))
    newest = state.folder / "round-00002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    assert read_corrected(tmp_path).believed.tolist() == [3]
    assert capsys.readouterr().err == (
        f"{newest} has changed since it was written: its checksum does not match: using round-00001.safetensors, the"
        " newest state that is valid.\n"
    )
    assert newest.exists()
