"""The run config: its keys, its checks, its precedence."""

import contextlib
import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.named import build_named, parse_args
from config.resolve import resolve
from config.run_config import ConfigError, RunConfig

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("num-server-rounds", "x", "a whole number of at least 1"),
        ("num-server-rounds", 0, "a whole number of at least 1"),
        ("num-server-rounds", True, "a whole number of at least 1"),
        ("num-server-rounds", 1.5, "a whole number of at least 1"),
        ("fraction-train", 0.0, "above 0 and at most 1"),
        ("fraction-train", 1.01, "above 0 and at most 1"),
        ("fraction-evaluate", -0.1, "at least 0 and at most 1"),
        ("learning-rate", 0.0, "above 0"),
        ("learning-rate", float("nan"), "above 0"),
        ("learning-rate", float("inf"), "above 0"),
        ("momentum", 1.0, "at least 0 and below 1"),
        ("weight-decay", -1.0, "at least 0"),
        ("batch-size", 0, "at least 1"),
        ("drop-last", 1, "true or false"),
        ("image-size", 8, "from 16 to 1024"),
        ("precision", "fp8", "one of auto, fp32, tf32, bf16, fp16"),
        ("model", "resnet51", "cnn, a network of torchvision such as resnet50, or timm:NAME"),
        ("train-split", "clean_train", "one of noisy, noisy-mini, clean"),
        ("pretrained", "weights.safetensors", "absolute path"),
        ("pretrained", "/weights.bin", ".safetensors, .pt or .pth"),
        ("data-dir", "data/clothing1M", "an absolute path"),
        ("run-name", "a/b", "a plain folder name"),
        ("run-name", "..", "a plain folder name"),
    ],
)
def test_bad_values_name_key_value_and_what_is_allowed(key: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"'{key}' is {value!r}; it must be ")) as caught:
        RunConfig.from_flat({key: value})
    assert allowed in str(caught.value)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no key 'learning_rate'.*learning-rate"):
        RunConfig.from_flat({"learning_rate": 0.1})


def test_whole_numbers_pass_for_decimals() -> None:
    assert RunConfig.from_flat({"learning-rate": 1}).learning_rate == 1.0


def test_the_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 2  # type: ignore[misc]


def test_what_the_user_sets_wins_over_the_preset_and_the_preset_over_pyproject() -> None:
    defaults = {**PYPROJECT, "seed": 7, "batch-size": 8}
    config = resolve({"preset": "notebook", "num-server-rounds": 1, "learning-rate": 0.01}, defaults)
    assert config.num_server_rounds == 1  # the user's, though the preset says 40
    assert config.batch_size == 64  # the preset's
    assert config.data_dir == ""  # nobody's
    assert resolve({}, defaults).batch_size == 8  # an edited pyproject.toml counts


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'preset' is 'paper'; it must be one of cifar10-fnbench, cifar10n, clothing1m, "
        r"fedcorr, fnbench, notebook\.",
    ):
        resolve({"preset": "paper"})


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "presets").glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_valid(path: Path) -> None:
    assert resolve({"preset": path.stem}).preset == path.stem


def test_the_notebook_preset_is_the_published_run() -> None:
    config = resolve({"preset": "notebook"})
    assert (config.num_server_rounds, config.fraction_train, config.local_epochs, config.batch_size) == (
        40,
        0.05,
        5,
        64,
    )
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.01, 0.0, 5e-4)
    assert (config.image_size, config.pretrained, config.augmentation) == (224, "imagenet", "none")


def test_args_are_toml_values_under_python_names() -> None:
    text = """alpha=0.5 min-size=10, name='a b' on=true sizes=[1, 2]"""
    assert parse_args("x-args", text) == {"alpha": 0.5, "min_size": 10, "name": "a b", "on": True, "sizes": [1, 2]}


@pytest.mark.parametrize("text", ["alpha", "alpha=", "alpha=x", "=1", "a=1 a=2", "a=1 b", "a = = 2"])
def test_malformed_args_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"'partition-args' is .*key=value pairs"):
        parse_args("partition-args", text)


@given(st.text(max_size=40))
def test_args_never_fail_otherwise(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_args("x-args", text)


_names = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True).map(lambda name: name.replace("-", "_"))


@given(st.dictionaries(_names, st.one_of(st.integers(-(2**60), 2**60), st.booleans(), st.floats(0.001, 1e6))))
def test_args_round_trip(values: dict[str, object]) -> None:
    text = " ".join(f"{key.replace('_', '-')}={str(value).lower()}" for key, value in values.items())
    assert parse_args("x-args", text) == values


def test_build_named_lists_what_is_known() -> None:
    table = {"one": lambda alpha=1.0: alpha}
    assert build_named("method", table, "one", "alpha=2.0") == 2.0
    with pytest.raises(ConfigError, match="'method' is 'two'; it must be one of one"):
        build_named("method", table, "two", "")
    with pytest.raises(ConfigError, match="'method-args' names 'beta'; one takes alpha"):
        build_named("method", table, "one", "beta=2")
