"""Whole runs that resume in folders to which something happened in between."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.sealed import write_sealed
from server_app.checkpoint_file import FORMAT, load_checkpoint
from server_app.start import app as server_app
from tests.fakes import InProcessGrid, outcome_of, partitions, rounds_of, run_in_process
from tests.server_app.conftest import ROUNDS
from tests.server_app.test_resume import settings


def resume(run_dir: Path, sample: Path, **changes: Any) -> None:
    """By a path, with all keys given once more."""
    run_in_process(
        run_dir.parent, **settings(sample, **{"num_server_rounds": ROUNDS, "resume": str(run_dir), **changes})
    )


def resume_alone(run_dir: Path, changes: Mapping[str, Any] | None = None) -> None:
    """By its path alone, with the config that the folder brings along."""
    values = {"resume": str(run_dir), **(changes or {})}
    grid = InProcessGrid(client_app, partitions(4), values)
    server_app(grid, Context(1, 1, {}, RecordDict(), {**RunConfig().to_flat(), **values}))


def test_lines_behind_a_damaged_one_are_kept(run_dir: Path, finished_run: Path, tiny_sample: Path) -> None:
    path = run_dir / "metrics.jsonl"
    first, second, *others = path.read_text().splitlines()
    damaged = "\n".join([first, second[:50], *others])
    path.write_text(damaged)
    resume(run_dir, tiny_sample, num_server_rounds=ROUNDS + 1)
    assert [line["round"] for line in rounds_of(run_dir)] == [1, 3, 4, 5]
    assert path.read_text().startswith("\n".join([first, *others]))
    assert (run_dir / "set-aside" / "metrics.jsonl.1").read_text() == damaged


def test_what_a_return_makes_obsolete_is_set_aside_and_can_be_resumed_from(
    run_dir: Path, finished_run: Path, tiny_sample: Path
) -> None:
    checkpoints, aside = run_dir / "checkpoints", run_dir / "set-aside"
    content = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    resume(checkpoints / "round-00003.safetensors", tiny_sample, num_server_rounds=3, output_dir=str(run_dir.parent))
    assert (aside / "round-00004.safetensors.1").read_bytes() == content["round-00004.safetensors"]
    assert (checkpoints / "round-00003.safetensors").read_bytes() == content["round-00003.safetensors"]
    assert [line["round"] for line in rounds_of(run_dir)] == [1, 2, 3]
    assert (aside / "metrics.jsonl.1").read_bytes() == (finished_run / "metrics.jsonl").read_bytes()

    resume(aside / "round-00004.safetensors.1", tiny_sample, num_server_rounds=5, output_dir=str(run_dir.parent))
    assert [line["round"] for line in rounds_of(run_dir)] == [1, 2, 3, 5]
    assert (aside / "round-00004.safetensors.1").read_bytes() == content["round-00004.safetensors"]
    assert load_checkpoint(checkpoints / "round-00004.safetensors").server_round == 4
    assert load_checkpoint(checkpoints / "round-00005.safetensors").server_round == 5


def test_odd_entries_among_checkpoints_are_left_alone(run_dir: Path, finished_run: Path, tiny_sample: Path) -> None:
    checkpoints = run_dir / "checkpoints"
    (checkpoints / "round-abc.safetensors").write_bytes(b"x")
    (checkpoints / "round-99999999999999999999.safetensors").symlink_to("nowhere")
    (checkpoints / "round-00007.safetensors").mkdir()
    (checkpoints / "round-00008.safetensors").symlink_to(checkpoints / "round-00003.safetensors")
    (checkpoints / "notes.txt").write_text("mine")
    resume(run_dir, tiny_sample, num_server_rounds=ROUNDS + 1)
    assert {path.name for path in checkpoints.iterdir()} - {"best.safetensors"} == {
        "round-abc.safetensors", "notes.txt", "round-00004.safetensors", "round-00005.safetensors",
    }  # fmt: skip
    assert {path.name.partition(".")[0] for path in (run_dir / "set-aside").iterdir()} == {
        "round-00007", "round-00008", "round-99999999999999999999",
    }  # fmt: skip


@pytest.mark.parametrize("resume_value", ["auto", "path"])
def test_a_run_none_of_whose_checkpoints_is_valid_is_refused(
    run_dir: Path, tiny_sample: Path, resume_value: str
) -> None:
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.stat().st_size for path in run_dir.rglob("*")}
    sentence = {
        "auto": "'resume' is 'auto', but none of the checkpoints in .*/checkpoints is usable; restore one of them, or",
        "path": "'resume' is '.*/run', where there is no usable checkpoint",
    }[resume_value]
    with pytest.raises(ConfigError, match=sentence):
        resume(run_dir, tiny_sample, resume=resume_value if resume_value == "auto" else str(run_dir))
    assert {path: path.stat().st_size for path in run_dir.rglob("*")} == before


def test_the_best_model_is_the_last_resort(run_dir: Path, finished_run: Path, tiny_sample: Path) -> None:
    best = load_checkpoint(run_dir / "checkpoints" / "best.safetensors").server_round
    for path in (run_dir / "checkpoints").glob("round-*"):
        path.write_bytes(b"")
    resume(run_dir, tiny_sample)
    assert outcome_of(run_dir) == outcome_of(finished_run)
    assert (run_dir / "resumes.jsonl").read_text().startswith(f'{{"round": {best}, "time": "2')


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("round", "4"), ("round", True), ("round", 0), ("config", []), ("config", {"seed": None}), ("roll", 1),
        ("best", [1]), ("best", ["1", 0.5]), ("best", [1, 10**400]), ("visits", {}), ("visits", [[1, 2, 3]]),
        ("visits", [["1", 2]]), ("run", "../.."), ("run", None), ("lists", []), ("lists", {"clean_test": 1}),
    ],
)  # fmt: skip
def test_facts_of_other_types_are_refused_although_their_checksum_fits(
    run_dir: Path, tiny_sample: Path, fact: str, value: object
) -> None:
    path = run_dir / "checkpoints" / "round-00004.safetensors"
    checkpoint = load_checkpoint(path)
    facts: dict[str, Any] = {
        "round": 4, "config": checkpoint.config, "roll": checkpoint.roll, "best": checkpoint.best, "visits": [],
        "run": checkpoint.run, "lists": checkpoint.lists,
    }  # fmt: skip
    arrays = {f"model/{name}": array for name, array in checkpoint.model.items()}
    write_sealed(path, FORMAT, facts, arrays)
    assert load_checkpoint(path).server_round == 4
    write_sealed(path, FORMAT, {**facts, fact: value}, arrays)
    with pytest.raises(ValueError, match=f"is incomplete: its '{fact}' is "):
        load_checkpoint(path)


def test_a_checkpoint_of_another_network_is_refused(run_dir: Path, tiny_sample: Path) -> None:
    path = run_dir / "checkpoints" / "round-00004.safetensors"
    checkpoint = load_checkpoint(path)
    arrays = {f"model/{name}": array for name, array in checkpoint.model.items()}
    arrays["model/fc.bias"] = np.zeros(3, np.float32)
    facts = {
        "round": 4, "config": checkpoint.config, "roll": checkpoint.roll, "best": None, "visits": [], "run": "a",
    }  # fmt: skip
    write_sealed(path, FORMAT, facts, arrays)
    with pytest.raises(
        ConfigError, match=r"of another network than the config describes: in 'model', 'fc.bias' has .*\(3,\)\."
    ):
        resume(run_dir, tiny_sample, num_server_rounds=ROUNDS + 1)


# What happens to config.toml, and whether it is then set aside.
CONFIGS: dict[str, tuple[Callable[[str], str | None], bool]] = {
    "missing": (lambda text: None, False),
    "empty": (lambda text: "", True),
    "cut off after a line": (lambda text: text[: text.index("data-dir")], True),
    "no TOML": (lambda text: text[: len(text) // 2] + "= =", True),
    "binary": (lambda text: "\0\0\0", True),
    "an unknown key": (lambda text: text + "colour = 1\n", True),
    "a bad value": (lambda text: text.replace("round-timeout = 0.0", "round-timeout = -1.0"), True),
    "another value": (lambda text: text.replace("learning-rate = 0.004", "learning-rate = 0.5"), True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_valid_config_file_the_checkpoint_s_config_counts(
    run_dir: Path, finished_run: Path, name: str
) -> None:
    change, is_set_aside = CONFIGS[name]
    path = run_dir / "config.toml"
    original = path.read_text()
    changed = change(original)
    path.unlink()
    if changed is not None:
        assert changed != original
        path.write_text(changed)
    resume_alone(run_dir, {"num-server-rounds": ROUNDS + 1})
    assert rounds_of(run_dir)[:ROUNDS] == rounds_of(finished_run)
    assert len(rounds_of(run_dir)) == ROUNDS + 1
    assert "learning-rate = 0.004" in path.read_text()
    aside = run_dir / "set-aside" / "config.toml.1"
    assert aside.exists() == is_set_aside
    if is_set_aside:
        assert aside.read_text() == changed


def test_leftovers_of_killed_processes_are_deleted(run_dir: Path, tiny_sample: Path) -> None:
    dead = [
        run_dir / ".model.safetensors.123", run_dir / ".metrics.jsonl.9", run_dir / "checkpoints" / ".best",
        run_dir / "checkpoints" / ".round-00009.safetensors.77",
    ]  # fmt: skip
    mine = [run_dir / ".notes", run_dir / ".notes.5"]
    for path in (*dead, *mine):
        path.write_bytes(b"half")
    resume(run_dir, tiny_sample)
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.toml", "model.safetensors", "accuracy.png", "checkpoints"])
def test_something_else_in_the_place_of_a_file_is_set_aside(run_dir: Path, tiny_sample: Path, name: str) -> None:
    path = run_dir / name
    if path.is_dir():
        best = path / "best.safetensors"
        shutil.move(best, run_dir / "kept")
        shutil.rmtree(path)
        path.write_text("a file")
        with pytest.raises(ConfigError, match="where there is no usable checkpoint"):
            resume(run_dir, tiny_sample)
        return
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("mine")
    resume(run_dir, tiny_sample, num_server_rounds=ROUNDS + 1)
    assert path.is_file()
    assert (run_dir / "set-aside" / f"{name}.1" / "mine").read_text() == "mine"


def test_a_damaged_best_model_is_set_aside_and_made_anew_if_its_round_is_at_hand(
    run_dir: Path, tiny_sample: Path
) -> None:
    checkpoints = run_dir / "checkpoints"
    whole = (checkpoints / "best.safetensors").read_bytes()
    best = load_checkpoint(checkpoints / "best.safetensors").server_round
    (checkpoints / "best.safetensors").write_bytes(whole[:-1])
    resume(run_dir, tiny_sample)
    assert (run_dir / "set-aside" / "best.safetensors.1").read_bytes() == whole[:-1]
    made = checkpoints / "best.safetensors"
    assert made.exists() == (checkpoints / f"round-{best:05}.safetensors").exists()
    assert not made.exists() or made.read_bytes() == whole


def test_a_client_with_damaged_state_goes_on_from_the_one_before(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = settings(tiny_sample, method="elr", fraction_train=1.0, num_server_rounds=3)

    def handler(message: Message, context: Context) -> Message:
        told = message.content.config_records.get("visit")
        if told and told["last-round"] == 2 and context.node_config["partition-id"] == 1:
            [path] = (tmp_path / "run" / "state").glob("*/client-00001/round-00002.safetensors")
            path.write_bytes(path.read_bytes()[:-1])
        return client_app(message, context)

    with caplog.at_level("WARNING", "flwr"):
        run_dir = run_in_process(tmp_path, handler=handler, **values)
    assert [line["failed-partitions"] for line in rounds_of(run_dir)] == [[], [], []]
    assert "client-00001/round-00002.safetensors.damaged cannot be read" in caplog.text
    assert ": continuing from the state of round 1." in caplog.text
    assert "Client 1 has lost its state from round 2 and starts afresh, or from an older state" in caplog.text
