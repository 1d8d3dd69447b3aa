"""What the log reports about settings and clients, and of what it warns."""

import logging
from pathlib import Path
from typing import Any

import pytest

from config.run_config import RunConfig
from config.stems import with_stem
from server_app.members import Member
from server_app.startup_log import (
    log_run,
    rate_lines,
    warn_of_few_images,
    warn_of_initial_weights,
    warn_of_partition,
    warn_of_weights,
)
from tests.fakes import run_in_process


def test_a_run_logs_its_clients(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="flwr"):
        run_in_process(tmp_path, data_dir=str(tiny_sample), num_server_rounds=1)
    log = caplog.messages
    for line in ("Clients     4", "Each round  2 of them train", "Training    ce on clients, fedavg on the server"):
        assert line in log
    start = log.index("Settings    9 differ from the defaults; config.toml has all")
    keys = [line.split()[0] for line in log[start + 1 : start + 10]]
    assert keys == [
        "output-dir", "run-name", "num-server-rounds", "data-dir", "fraction-train", "model", "image-size",
        "batch-size", "precision",
    ]  # fmt: skip
    assert not [line for line in log if line.startswith("configure_train")]
    # Flower puts 12 characters before each; paths cannot be cut, and have lines of their own.
    assert [line for line in log if len(line) > 68 and str(tmp_path) not in line and str(tiny_sample) not in line] == []


@pytest.mark.parametrize(
    ("changes", "line", "listed"),
    [
        ({}, "Inputs      224 pixels, stem imagenet, normalization imagenet", False),
        ({"image_size": 32}, "Inputs      32 pixels, stem small, normalization imagenet", False),
        ({"image_size": 32, "stem": "imagenet"}, "Inputs      32 pixels, stem imagenet, normalization imagenet", True),
        ({"model": "cnn", "normalization": "cifar10"}, "Inputs      224 pixels, normalization cifar10", False),
    ],
)
def test_the_log_names_stem_and_normalization(
    changes: dict[str, Any],
    line: str,
    listed: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stem is a setting that differs from the defaults only if it is not what `auto` means."""
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    values: dict[str, Any] = {"model": "resnet18", "image_size": 224, **changes}
    config = with_stem(RunConfig(**values))
    with caplog.at_level(logging.INFO, logger="flwr"):
        log_run(config, None, 10, tmp_path, "cpu", [])
    assert line in caplog.messages
    assert any(message.split()[:1] == ["stem"] for message in caplog.messages) is listed


@pytest.mark.parametrize(
    ("partition", "own_folder", "warned"), [("natural", True, True), ("natural", False, False), ("iid", True, False)]
)
def test_a_partition_that_deals_nothing_is_named(
    partition: str,
    own_folder: bool,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    member = Member(1, 0, 100, None, "cpu float32", own_folder=own_folder)  # type: ignore[arg-type]
    warn_of_partition(RunConfig(partition=partition), [member] * 2)
    assert [message.split(",")[0] for message in caplog.messages] == ["'partition' is 'natural'"] * warned


@pytest.mark.parametrize(("images", "warned"), [([10, 10, 21], True), ([10, 10, 20], False), ([10, 90], False)])
def test_a_client_that_decides_alone_is_named(
    images: list[int], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    members = [Member(i, i, count, None, "cpu") for i, count in enumerate(images)]  # type: ignore[arg-type]
    warn_of_weights(members)
    expected = ["Client 2 reports 21 of all 41 images, and so decides most of each mean."]
    assert caplog.messages == (expected if warned else [])


@pytest.mark.parametrize(
    ("inspection", "images", "held_out", "named"),
    [
        ("none", [4, 4], [0, 0], ""),  # one that is away, or holds nothing out
        ("before", [4, 5], [0, 0], "client 0 will"),
        ("none", [40, 40], [5, 4], "client 1 will"),
        ("both", [1, 9, 9], [1, 1, 9], "clients 0, 1 will"),
        ("both", [1] * 14, [1] * 14, "clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more will"),
    ],
)
def test_clients_whose_numbers_tell_about_single_images_are_named(
    inspection: str, images: list[int], held_out: list[int], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    members = [
        Member(i, i, count, None, "cpu", held_out=own)  # type: ignore[arg-type]
        for i, (count, own) in enumerate(zip(images, held_out, strict=True))
    ]
    warn_of_few_images(RunConfig(inspection=inspection), members)
    sentence = (
        f"Some numbers that {named} report are about fewer than 5 images, and so tell about single ones; see"
        " docs/clients.md."
    )
    assert caplog.messages == ([sentence] if named else [])


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, []),
        ({"lr_schedule": "linear", "lr_schedule_args": "final=1"}, []),
        ({"lr_schedule": "cosine"}, ["Rates       0.01 in round 1, 0.00146 in round 4 (cosine)"]),
        ({"lr_warm_up": 1}, ["Rates       0.005 in round 1, 0.01 in round 2, 0.01 in round 4 (constant)"]),
        ({"num_server_rounds": 1, "lr_schedule": "linear"}, []),
    ],
)
def test_rates_that_change_are_logged_at_the_start(values: dict[str, Any], lines: list[str]) -> None:
    base: dict[str, Any] = {"learning_rate": 0.01, "num_server_rounds": 4}
    assert rate_lines(RunConfig(**{**base, **values})) == lines


@pytest.mark.parametrize(("values", "times"), [({}, 1), ({"learning-rate": 0.01}, 0)], ids=["the-presets", "my-own"])
def test_a_learning_rate_that_does_not_suit_is_warned_of_once(
    values: dict[str, Any], times: int, tiny_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when the run is resumed, whose settings have been chosen."""
    small: dict[str, Any] = {"model": "cnn", "image-size": 16, "batch-size": 8, "local-epochs": 1, "pretrained": "none"}
    given: dict[str, Any] = {
        "preset": "notebook",
        "method": "gce",
        "data-dir": str(tiny_sample),
        "num-server-rounds": 1,
    }
    run_in_process(tmp_path, **given, **small, **values)
    sentence = "'method' is 'gce', which suits a 'learning-rate' of 0.1 with 'preset' 'notebook'; it is 0.01"
    assert sum(message.startswith(sentence) for message in caplog.messages) == times
    caplog.clear()
    run_in_process(tmp_path, **{**given, **small, "num-server-rounds": 2, "resume": str(tmp_path / "run")})
    assert not any(message.startswith(sentence) for message in caplog.messages)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainable": "head"}, ["the weights that do not train stay as they were drawn"]),
        ({"batchnorm": "frozen"}, ["which normalise nothing"]),
        ({"trainable": "lora", "pretrained": "/weights.pt"}, []),
        ({}, []),
    ],
)
def test_a_frozen_rest_without_initial_weights_is_warned_of(
    values: dict[str, Any], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_initial_weights(RunConfig(**values))
    assert len(caplog.messages) == len(words)
    assert all(word in message for word, message in zip(words, caplog.messages, strict=True))
