"""What may differ when a run resumes, how that is recorded, and what tells that the data are others."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from config.run_config import ConfigError
from data.partition.file import save_partition
from data.partition.schemes import partition
from data.release import open_release
from server_app.may_differ import MAY_DIFFER, NOT_SEARCHED
from tests.fakes import rounds_of, run_in_process
from tests.server_app.conftest import ROUNDS
from tests.server_app.test_resume import settings
from tests.server_app.test_run_folder import resume, resume_alone


def test_what_a_resume_changed_counts_for_the_next_one(run_dir: Path) -> None:
    """Also if that was killed before its first checkpoint."""
    config = run_dir / "config.toml"
    config.write_text(config.read_text().replace("num-server-rounds = 4", "num-server-rounds = 5"))
    resume_alone(run_dir)
    assert len(rounds_of(run_dir)) == 5


def test_a_run_whose_data_moved_resumes(run_dir: Path, tiny_sample: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_sample, tmp_path / "moved")
    resume(run_dir, moved, num_server_rounds=ROUNDS + 1, round_timeout=99.0, min_reply_fraction=0.25)
    [line] = [json.loads(line) for line in (run_dir / "resumes.jsonl").read_text().splitlines()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line.pop("time"))
    assert line == {
        "round": ROUNDS,
        "flower-run": "1",
        "changed": {
            "data-dir": [str(tiny_sample), str(moved)],
            "min-reply-fraction": [0.5, 0.25],
            "num-server-rounds": [ROUNDS, ROUNDS + 1],
            "output-dir": [json.loads(json.dumps(line["changed"]["output-dir"][0])), str(tmp_path)],
            "round-timeout": [0.0, 99.0],
        },
    }


def test_a_partition_file_may_move_but_not_change(tmp_path: Path, tiny_sample: Path) -> None:
    noisy = open_release(tiny_sample).split("noisy_train")
    for name, seed in (("before", 1), ("moved", 1), ("another", 2)):
        save_partition(tmp_path / name, noisy.keys, partition("iid", noisy.labels, 4, seed), {})

    def run(name: str, rounds: int, **changes: Any) -> Path:
        dealt = {"partition": "file", "partition_args": f"path='{tmp_path / name}'"}
        return run_in_process(tmp_path / "out", **settings(tiny_sample, **dealt, num_server_rounds=rounds, **changes))

    run_dir = run("before", 1)
    with pytest.raises(ConfigError, match="the clients are not those of that run: their number or their images"):
        run("another", 2, resume=str(tmp_path / "out" / "run"))
    run("moved", 2, resume=str(run_dir))
    changed = json.loads((run_dir / "resumes.jsonl").read_text())["changed"]
    assert changed["partition-args"] == [f"path='{tmp_path / name}'" for name in ("before", "moved")]


@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"round": 1, "ti'])
def test_each_resume_has_a_line_of_its_own(run_dir: Path, tiny_sample: Path, end: bytes) -> None:
    (run_dir / "resumes.jsonl").write_bytes(b'{"round": 1}' + end)
    resume(run_dir, tiny_sample)
    *before, last = (run_dir / "resumes.jsonl").read_bytes().splitlines()
    assert b"\n".join(before) == (b'{"round": 1}' + end).rstrip(b"\n")
    assert json.loads(last)["round"] == ROUNDS


@pytest.mark.parametrize(
    ("file", "changes", "what"),
    [
        ("clean_test_key_list.txt", {}, "clean_test"),
        ("clean_val_key_list.txt", {}, "clean_val"),
        ("clean_val_key_list.txt", {"val_split": "none", "fraction_evaluate": 0.5}, "clean_val"),
        ("clean_train_key_list.txt", {"method": "forward"}, "one of the lists"),
    ],
)
def test_other_data_on_the_server_are_refused(
    tmp_path: Path, tiny_sample: Path, file: str, changes: dict[str, Any], what: str
) -> None:
    common = {"fraction_train": 0.5, **changes, "num_server_rounds": 1}
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, **common))
    other = shutil.copytree(tiny_sample, tmp_path / "other")
    lines = (other / file).read_text().splitlines()
    (other / file).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ConfigError) as caught:
        run_in_process(tmp_path, **settings(other, **{**common, "num_server_rounds": 2}, resume=str(run_dir)))
    assert str(caught.value) == (
        f"run config: 'resume' continues a run, but {what} in the server's 'data-dir' has changed since that run began:"
        " it names other images or labels."
    )


def test_auto_without_a_name_takes_no_run_on_another_folder(run_dir: Path, tiny_sample: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_sample, tmp_path / "moved")
    values = settings(moved, resume="auto", run_name="", num_server_rounds=ROUNDS + 1)
    run_in_process(run_dir.parent, **values)
    assert len(rounds_of(run_dir)) == ROUNDS
    assert MAY_DIFFER > NOT_SEARCHED
