"""Runs record what `auto` meant, and runs of versions that had no `stem` are read as what they were."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tomli_w

from config.run_config import ConfigError
from data.whole_files import round_path
from runs.model.opened import open_model
from runs.run import read_run
from runs.showing import settings as shown_settings
from server_app.checkpoint_file import load_checkpoint, save_checkpoint
from server_app.files import CHECKPOINTS
from server_app.resume import read_config
from tests.fakes import run_in_process

LATER = {"stem", "normalization-args"}  # keys that earlier versions did not have
SMALLEST: dict[str, Any] = {
    "model": "resnet18", "image_size": 16, "num_server_rounds": 1, "local_epochs": 1, "fraction_train": 0.25,
}  # fmt: skip


def _run(out: Path, sample: Path, name: str, **more: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), run_name=name, **{**SMALLEST, **more})


def _age(run: Path) -> None:
    """Take these keys out of all that a run's folder says."""
    path = run / "config.toml"
    head, _, _ = path.read_text(encoding="utf-8").partition("\n")
    values = _without_later(tomllib.loads(path.read_text(encoding="utf-8")))
    path.write_text(f"{head}\n{tomli_w.dumps(values)}", encoding="utf-8")
    for file in (run / CHECKPOINTS).iterdir():
        checkpoint = load_checkpoint(file)
        save_checkpoint(file, replace(checkpoint, config=_without_later(checkpoint.config)))


def _without_later(values: Mapping[str, Any]) -> dict[str, Any]:
    assert values.keys() > LATER
    return {key: value for key, value in values.items() if key not in LATER}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    """A run of one round, as a version without these keys left it."""
    run = _run(tmp_path_factory.mktemp("old"), tiny_sample, "old")
    _age(run)
    assert not LATER & tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).keys()
    return run


def test_a_run_records_what_auto_meant(tmp_path: Path, tiny_sample: Path) -> None:
    run = read_run(_run(tmp_path, tiny_sample, "small", stem="auto"))
    assert run.config["stem"] == "small"
    assert "stem" not in shown_settings(run)
    opened = open_model(run.folder)
    assert opened.facts.small_stem
    assert opened.model.get_parameter("conv1.weight").shape == (64, 3, 3, 3)
    assert safetensors.torch.load_file(run.folder / "model.safetensors")["conv1.weight"].shape == (64, 3, 3, 3)


def test_an_old_run_is_read_and_opened_with_imagenets_stem(old: Path) -> None:
    run = read_run(old)
    assert (run.config["stem"], run.problems) == ("imagenet", ())
    assert shown_settings(run)["stem"] == "imagenet"  # `auto` would be small now, so that a command must name it
    for path in (old, round_path(old / CHECKPOINTS, 1)):
        opened = open_model(path)
        assert not opened.facts.small_stem
        assert opened.model.get_parameter("conv1.weight").shape == (64, 3, 7, 7)


def test_an_old_run_resumes_as_what_it_was(old: Path, tmp_path: Path, tiny_sample: Path) -> None:
    undisturbed = _run(tmp_path, tiny_sample, "undisturbed", num_server_rounds=2)
    _run(old.parent, tiny_sample, "old", num_server_rounds=2, resume=str(old))
    ours, theirs = (load_checkpoint(round_path(run / CHECKPOINTS, 2)) for run in (old, undisturbed))
    assert ours.model.keys() == theirs.model.keys()
    assert all((ours.model[name] == theirs.model[name]).all() for name in theirs.model)
    assert ours.config["stem"] == "imagenet"
    assert read_config(old) is not None


def test_another_stem_is_refused_when_a_run_resumes(old: Path, tiny_sample: Path) -> None:
    for stem in ("small", "auto"):
        with pytest.raises(ConfigError, match="'stem' was 'imagenet' and is now 'small'"):
            _run(old.parent, tiny_sample, "old", resume="auto", stem=stem, num_server_rounds=3)
