"""What is kept with a model's weights reads back as it was, from this version's files and from older ones."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.choices import NORMALIZATIONS
from config.run_config import RunConfig
from data.sealed import DamagedError
from learning.model_facts import ModelFacts
from task import build_model

NAMES = ("T-Shirt", "连衣裙", "a\nb")
OLD = {"class-names": '["a", "b"]', "model": "cnn", "method": "ce", "image-size": "64", "normalization": "half"}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    st.sampled_from(sorted(NORMALIZATIONS)),
    st.lists(st.floats(1e-6, 1), min_size=6, max_size=6),
    st.integers(16, 1024),
    st.integers(0, 10**6),
)
def test_it_reads_back_as_it_was(
    names: list[str], normalization: str, numbers: list[float], size: int, server_round: int
) -> None:
    args = f"mean={numbers[:3]} deviation={numbers[3:]}"
    config = RunConfig(
        model="resnet18", normalization=normalization, normalization_args=args, image_size=size, method="elr"
    )
    facts = ModelFacts.of(config, tuple(names), server_round=server_round)
    assert ModelFacts.from_metadata(facts.to_metadata()) == facts
    if normalization == "release":
        assert [*facts.mean, *facts.deviation] == numbers


def test_it_says_what_the_input_must_be_in_numbers() -> None:
    metadata = ModelFacts.of(RunConfig(model="cnn", image_size=32), NAMES, server_round=7).to_metadata()
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(metadata["deviation"]) == [0.229, 0.224, 0.225]
    assert json.loads(metadata["class-names"]) == list(NAMES)
    told = {name: metadata[name] for name in ("model", "image-size", "normalization", "method", "round", "networks")}
    assert told == {
        "model": "cnn", "image-size": "32", "normalization": "imagenet", "method": "ce", "round": "7", "networks": "1",
    }  # fmt: skip
    assert "further-heads" not in metadata


def test_networks_and_heads_are_those_of_the_model() -> None:
    model = build_model("cnn", 3, seed=1, networks=2, heads=(("noise", 5),))
    facts = ModelFacts.of(RunConfig(model="cnn"), NAMES, model)
    assert (facts.networks, facts.heads) == (2, (("noise", 5),))
    assert ModelFacts.from_metadata(facts.to_metadata()) == facts


@pytest.mark.parametrize(
    ("changes", "small"),
    [
        ({"image_size": 32}, True),
        ({"image_size": 33}, False),
        ({"image_size": 32, "stem": "imagenet"}, False),
        ({"image_size": 48, "stem": "small"}, True),
        ({"image_size": 32, "pretrained": "imagenet"}, False),
    ],
)
def test_a_small_stem_is_told_and_built(changes: dict[str, Any], small: bool) -> None:
    facts = ModelFacts.of(RunConfig(model="resnet18", **changes), NAMES)
    assert facts.small_stem == small
    assert facts.stem.startswith("3x3 convolution of stride 1" if small else "7x7 convolution of stride 2")
    assert ("maxpool = nn.Identity()" in facts.build) == small
    assert facts.to_metadata().get("small-stem") == ("true" if small else None)
    assert ModelFacts.from_metadata(facts.to_metadata()) == facts


def test_files_of_earlier_versions_have_imagenets_stem() -> None:
    assert not ModelFacts.from_metadata({**OLD, "model": "resnet18", "image-size": "32"}).small_stem


def test_files_of_earlier_versions_lack_what_can_be_known() -> None:
    facts = ModelFacts.from_metadata({**OLD, "round": "3"}, frozenset({"networks.0.fc.weight", "networks.1.fc.weight"}))
    assert (facts.networks, facts.round, facts.mean, facts.build) == (2, 3, (0.5, 0.5, 0.5), "")
    assert ModelFacts.from_metadata(OLD, frozenset({"fc.weight"})).networks == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"class-names": ""}, "its metadata lacks 'class-names'"),
        ({"class-names": "[1]"}, "'class-names' are no list of names"),
        ({"class-names": "[]"}, "'class-names' are none"),
        ({"class-names": '["\\ud800"]'}, "'class-names' are no list of names"),
        ({"class-names": "[" * 100_000}, "'class-names' is no JSON"),
        ({"model": "resnet"}, "'model' is 'resnet'"),
        ({"image-size": "-1"}, "'image-size' is '-1', which is no whole number"),
        ({"image-size": "9999"}, "'image-size' is 9999"),
        ({"image-size": "²"}, "which is no whole number"),
        ({"normalization": "none"}, "'normalization' is 'none'"),
        ({"mean": "[0, 0, 0]"}, "has a mean that is not that of its normalization 'half'"),
        ({"deviation": "x"}, "'deviation' is no JSON"),
        ({"normalization": "release"}, "by which no input can be normalised: mean must be three numbers from 0 to 1"),
        ({"normalization": "release", "mean": "[0, 1, 2]"}, "mean must be three numbers from 0 to 1"),
        ({"normalization": "release", "mean": "[0, 0, 0]", "deviation": "[1, 0, 1]"}, "deviation must be three"),
        ({"normalization": "release", "mean": "[NaN, 0, 0]", "deviation": "[1, 1, 1]"}, "mean must be three"),
        ({"further-heads": "[]"}, "'further-heads' are no numbers by name"),
        ({"further-heads": '{"a": true}'}, "'further-heads' are no numbers by name"),
        ({"small-stem": "true"}, "'small-stem' is true, but a cnn has none"),
        ({"model": "resnet18", "small-stem": "yes"}, "'small-stem' is 'yes', which must be true or missing"),
        ({"networks": "two"}, "'networks' is 'two'"),
        ({"round": "1" * 5000}, "which is no whole number"),
    ],
)
def test_whatever_else_it_holds_is_one_sentence(changed: dict[str, str], said: str) -> None:
    with pytest.raises(DamagedError) as error:
        ModelFacts.from_metadata({**OLD, **changed})
    assert said in str(error.value)
    assert len(str(error.value)) < 500


def test_nothing_is_lost_when_the_round_changes() -> None:
    facts = ModelFacts.of(RunConfig(model="cnn"), NAMES)
    assert replace(facts, round=2).to_metadata() == {**facts.to_metadata(), "round": "2"}
