"""Presets are the protocols that they name, and what they set for one method does not break a run of another."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from config import choices
from config.check import examine
from config.named import parse_args
from config.resolve import fused_values, resolve
from config.run_config import PRESETS
from config.stems import stem_of
from methods import build_method


def test_fedcorr_is_the_published_protocol() -> None:
    config = resolve({"preset": "fedcorr"})
    assert (config.num_server_rounds, config.method, config.local_epochs) == (1100, "fedcorr", 5)
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.001, 0.5, 0.0)
    assert (config.batch_size, config.drop_last, config.lr_schedule) == (16, False, "constant")
    assert (config.model, config.image_size, config.pretrained) == ("resnet50", 224, "imagenet")
    assert (config.augmentation, config.normalization) == ("crop-flip", "imagenet")
    assert config.partition == "bernoulli-dirichlet"
    assert parse_args("partition-args", config.partition_args) == {"p": 0.7, "alpha": 10}


def test_fedcorr_has_the_published_stages() -> None:
    """2 x 500 visits, one a round; then 50 rounds and 50, of ten clients each."""
    config = resolve({"preset": "fedcorr"})
    method: Any = build_method(config)
    assert method.stages(config.num_server_rounds) == (1000, 50)
    half = method.on_server()
    half.prepare(config, None)
    assert round(500 * config.fraction_train) == 10
    assert half.choose(1, range(500), 10).count == 1
    assert half.choose(1000, range(500), 10).count == 1


def test_fedcorr_has_the_published_parameters() -> None:
    method: Any = build_method(resolve({"preset": "fedcorr"}))
    assert (method.alpha, method.beta, method.neighbours) == (1.0, 5.0, 20)
    assert (method.relabel_ratio, method.confidence, method.clean_share) == (0.8, 0.9, 0.1)
    assert (method.proximal, method.groups) == ("norm", "always")


@pytest.mark.parametrize(("rounds", "stages"), [(1100, (1000, 50)), (220, (200, 10)), (22, (20, 1)), (3, (2, 0))])
def test_fedcorr_can_be_run_for_fewer_rounds(rounds: int, stages: tuple[int, int]) -> None:
    config, problems = examine({"preset": "fedcorr", "num-server-rounds": rounds})
    assert problems == []
    method: Any = build_method(config)
    assert method.stages(rounds) == stages


def test_feddiv_can_be_run_as_the_preset_advises() -> None:
    """Its paper turns the two iterations into 2 / 0.02 = 100 rounds."""
    text = (PRESETS / "fedcorr.toml").read_text(encoding="utf-8")
    (advised,) = [line for line in text.splitlines() if "method='feddiv'" in line]
    values: dict[str, Any] = parse_args("advised", advised.removeprefix("#").strip())
    config, problems = examine({"preset": "fedcorr", **{key.replace("_", "-"): one for key, one in values.items()}})
    assert problems == []
    method: Any = build_method(config)
    assert (config.method, method.warm_up, method.prior_weight) == ("feddiv", 0.5, 1.0)
    visits = round(config.num_server_rounds * config.fraction_train * 500)
    assert visits == 2 * 500 + 100 * 10  # FedCorr's


def test_fnbench_is_its_protocol_and_names_no_dataset() -> None:
    config = resolve({"preset": "fnbench"})
    assert (config.num_server_rounds, config.fraction_train, config.local_epochs) == (120, 0.1, 5)
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.01, 0.9, 5e-4)
    assert (config.batch_size, config.drop_last, config.lr_schedule) == (64, True, "constant")
    assert (config.model, config.image_size, config.pretrained) == ("resnet18", 32, "none")
    assert (config.partition, config.partition_args) == ("dirichlet", "alpha=1.0 min-size=100")
    assert (config.data_dir, config.label_noise, config.label_noise_args) == ("", "none", "")
    assert (config.augmentation, config.normalization, stem_of(config)) == ("pad-crop-flip", "imagenet", "small")


@pytest.mark.parametrize("preset", ["cifar10-fnbench", "cifar10n"])
def test_cifar_10_has_fnbenchs_protocol(preset: str) -> None:
    """What both say of training is what `fnbench` says; a test set alone is clean."""
    config, problems = examine({"preset": preset})
    assert (config.stem, problems) == ("small", [])
    assert (config.val_split, config.test_split, config.data_dir) == ("none", "clean_test", "")
    apart = {
        "preset",
        "val-split",
        "partition",
        "partition-args",
        "label-noise",
        "label-noise-args",
        "stem",
        "strategy",
    }
    fnbench = resolve({"preset": "fnbench"}).to_flat()
    assert {key for key, value in config.to_flat().items() if value != fnbench[key]} <= apart


def test_cifar_10_has_fnbenchs_first_setting() -> None:
    config = resolve({"preset": "cifar10-fnbench"})
    assert (config.partition, config.partition_args) == ("dirichlet", "alpha=1.0 min-size=100")
    assert (config.label_noise, config.label_noise_args) == ("pairflip", "min-rate=0.0 max-rate=0.4")


def test_human_labels_get_no_noise_on_top_and_equal_shares() -> None:
    config = resolve({"preset": "cifar10n"})
    assert (config.partition, config.partition_args, config.label_noise) == ("iid", "", "none")


@pytest.mark.parametrize(
    "others",
    [
        {"label-noise": "pairflip", "label-noise-args": "min-rate=0.0 max-rate=0.4"},
        {
            "label-noise": "symmetric",
            "label-noise-args": "min-rate=0.0 max-rate=0.4",
            "partition-args": "alpha=0.5 min-size=100",
        },
        {"partition": "shards"},
        {"model": "resnet50", "pretrained": "imagenet", "image-size": 224},
    ],
)
def test_fnbenchs_settings_can_be_chosen(others: dict[str, Any]) -> None:
    config, problems = examine({"preset": "fnbench", **others})
    assert problems == []
    assert config.to_flat().items() >= others.items()


@pytest.mark.parametrize("preset", choices.PRESETS)
def test_a_preset_names_what_its_parameters_are_for(preset: str) -> None:
    values = tomllib.loads((PRESETS / f"{preset}.toml").read_text(encoding="utf-8"))
    assert [key for key in values if key.endswith("-args") and key.removesuffix("-args") not in values] == []


def test_the_readmes_lines_for_other_datasets_are_runs() -> None:
    """Each row's last cell, with nothing but the data left to name."""
    readme = (PRESETS.parents[1] / "README.md").read_text(encoding="utf-8")
    _, table = readme.split("## With other datasets\n")
    rows = [line for line in table.split("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 11
    for row in rows:
        *_, line, _ = row.split("|")
        values: dict[str, Any] = parse_args("row", line.strip(" `"))
        config, problems = examine({key.replace("_", "-"): value for key, value in values.items()})
        assert problems == [], row
        assert stem_of(config) == ("small" if config.image_size == 32 else "imagenet")
        assert config.val_split == "none" or not {"fnbench", "cifar10n"} & {config.preset}


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A folder with one preset, `mine`."""
    lines = ["method = 'elr'", "method-args = 'beta=0.9'", "partition = 'dirichlet'", "partition-args = 'alpha=0.3'"]
    (tmp_path / "mine.toml").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("chosen", "method_args", "partition_args"),
    [
        ({}, "beta=0.9", "alpha=0.3"),
        ({"method": "elr"}, "beta=0.9", "alpha=0.3"),
        ({"method": "sce"}, "", "alpha=0.3"),
        ({"method": "custom.mine:Mine"}, "", "alpha=0.3"),
        ({"partition": "iid"}, "beta=0.9", ""),
        ({"method": "sce", "partition": "iid"}, "", ""),
        ({"method": "sce", "method-args": "beta=0.5"}, "beta=0.5", "alpha=0.3"),
        ({"method-args": ""}, "", "alpha=0.3"),
        ({"partition-args": "alpha=1.0"}, "beta=0.9", "alpha=1.0"),
    ],
)
def test_what_a_preset_gives_to_its_method_is_for_no_other(
    chosen: dict[str, str], method_args: str, partition_args: str, presets: Path
) -> None:
    defaults = {"method": "ce", "method-args": "", "partition": "iid", "partition-args": ""}
    values = fused_values({"preset": "mine", **chosen}, defaults, presets)
    assert (values["method-args"], values["partition-args"]) == (method_args, partition_args)
