"""What the log reports about machines and clients, and which setting it recommends."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.run_config import RunConfig
from config.stems import with_stem
from server_app.members import Member
from server_app.startup_log import (
    Facts,
    alone,
    describe,
    gather,
    log_run,
    rate_lines,
    warn_of_few_images,
    warn_of_initial_weights,
    warn_of_partition,
    warn_of_weights,
    warnings,
)
from simulation.capacity import GIB, Share
from tests.fakes import InProcessGrid, run_in_process

FACTS = Facts(
    machines=[Share(2, 0)],
    memory=int(23.4 * GIB),
    client=Share(1, 0),
    clients=10,
    sampled=2,
    on_gpu=False,
    fraction_train=0.2,
)
ON_GPU = replace(FACTS, machines=[Share(16, 1)], client=Share(2, 0.25), on_gpu=True, sampled=4)


def test_one_machine() -> None:
    assert describe(FACTS) == [
        "Machine     2 CPUs and no GPU, 23.4 GiB of memory",
        "Clients     10, each with 1 CPU and no GPU",
        "Each round  2 of them train; room for 2 at once",
    ]
    assert describe(replace(FACTS, memory=None))[0] == "Machine     2 CPUs and no GPU"


def test_several_machines_and_fractions_of_gpus() -> None:
    assert describe(replace(ON_GPU, machines=[Share(16, 1), Share(8, 2)])) == [
        "Machines    2, together 24 CPUs and 3 GPUs",
        "Clients     10, each with 2 CPUs and 0.25 GPU",
        "Each round  4 of them train; room for 8 at once",
    ]


def test_the_machines_of_real_nodes_are_unknown() -> None:
    facts = replace(FACTS, machines=[], client=None)
    assert describe(facts) == ["Clients     10", "Each round  2 of them train"]
    assert warnings(facts) == []


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,
        replace(FACTS, client=Share(2, 0)),
        replace(FACTS, machines=[Share(16, 0)], client=Share(3, 0), sampled=10),  # one CPU in sixteen
        ON_GPU,
        replace(ON_GPU, client=Share(4, 0.25)),
        replace(ON_GPU, client=Share(1, 1), sampled=1),
        replace(ON_GPU, client=Share(16, 0.25), sampled=1),  # CPUs for one, and there is one
        replace(ON_GPU, machines=[Share(16, 4)]),  # four clients, each on a GPU of its own
    ],
)
def test_no_warning_if_nothing_is_idle(facts: Facts) -> None:
    assert warnings(facts) == []


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            replace(ON_GPU, client=Share(2, 0), on_gpu=False),
            "Idle: 1 GPU. Clients were given none; add client-resources-num-gpus=0.25 in --federation-config, or the"
            " value that `python -m probe` recommends.",
        ),
        (
            replace(ON_GPU, on_gpu=False),
            "Clients were given 0.25 GPU, but train on the CPU: this PyTorch sees no GPU. Install a build for your GPU,"
            " or check the driver (nvidia-smi).",
        ),
        (
            replace(ON_GPU, machines=[Share(16, 2)], client=Share(2, 2), sampled=1),
            "A client computes on one GPU, but was given 2: the others are idle. Use client-resources-num-gpus=1 in"
            " --federation-config.",
        ),
        (
            replace(ON_GPU, machines=[Share(4, 1)]),
            "GPUs have room for 4 clients at once, CPUs only for 2; use client-resources-num-cpus=1 in"
            " --federation-config.",
        ),
        (
            replace(ON_GPU, machines=[Share(2, 1)]),
            "GPUs have room for 4 clients at once, CPUs only for 1.",
        ),
        (
            replace(ON_GPU, machines=[Share(64, 8)], sampled=5, clients=100, fraction_train=0.05),
            "Idle: 3 of 8 GPUs, because only 5 clients train in each round; use a fraction-train above 0.05, and"
            " client-resources-num-gpus=1 in --federation-config to give each a whole GPU.",
        ),
        (
            replace(ON_GPU, machines=[Share(16, 1), Share(16, 1)], client=Share(2, 1), sampled=1, fraction_train=1.0),
            "Idle: 1 of 2 GPUs, because only 1 client trains in each round; use more clients.",
        ),
        (
            replace(ON_GPU, machines=[Share(8, 8)], client=Share(4, 1), sampled=4, fraction_train=1.0),
            "GPUs have room for 8 clients at once, CPUs only for 2; use client-resources-num-cpus=2 in"
            " --federation-config.",
        ),
        (
            replace(ON_GPU, machines=[Share(16, 8)], client=Share(2, 1), sampled=2, on_gpu=False),
            "Clients were given 1 GPU, but train on the CPU: this PyTorch sees no GPU. Install a build for your GPU,"
            " or check the driver (nvidia-smi).",
        ),
        (
            replace(FACTS, machines=[Share(3, 0)], client=Share(2, 0)),
            "Idle: 1 of 3 CPUs, with 1 client at once; use client-resources-num-cpus=1 in --federation-config.",
        ),
        (
            replace(FACTS, machines=[Share(64, 0)], client=Share(48, 0)),
            "Idle: 16 of 64 CPUs, with 1 client at once; use client-resources-num-cpus=32 in --federation-config.",
        ),
        (
            replace(FACTS, sampled=1, fraction_train=0.1),
            "Idle: 1 of 2 CPUs, with 1 client at once; use client-resources-num-cpus=2 in --federation-config, or a"
            " fraction-train above 0.1.",
        ),
        (
            replace(FACTS, machines=[Share(16, 0)]),
            "Idle: 14 of 16 CPUs, with 2 clients at once; use client-resources-num-cpus=8 in --federation-config, or a"
            " fraction-train above 0.2.",
        ),
        (
            replace(FACTS, machines=[Share(4, 0), Share(4, 0)], sampled=1),
            "Idle: 7 of 8 CPUs, with 1 client at once; use client-resources-num-cpus=4 in --federation-config, or a"
            " fraction-train above 0.2.",
        ),
    ],
)
def test_a_warning_names_what_is_idle_and_the_setting_that_changes_it(facts: Facts, sentence: str) -> None:
    assert warnings(facts) == [sentence]


def _member(share: Share | None, compute: str = "cpu float32") -> Member:
    return Member(1, 0, 100, None, compute, share=share)  # type: ignore[arg-type]


def test_facts_come_from_ray_and_the_roll_call(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Resources": {"CPU": 8.0, "GPU": 1.0}}]
    grid = InProcessGrid(lambda message, context: None, [])
    members = [_member(Share(2, 0.25), "cuda bfloat16"), _member(Share(2, 0.25))]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes))
    facts = gather(grid, members, 1, 0.5)
    assert facts == Facts([Share(8, 1)], facts.memory, Share(2, 0.25), 2, 1, True, 0.5)
    remote: Any = SimpleNamespace()  # not an InMemoryGrid
    assert gather(remote, members, 1, 0.5).client is None
    monkeypatch.delitem(sys.modules, "ray")
    assert gather(grid, members, 1, 0.5).machines == []


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
    ("facts", "warned"),
    [
        (FACTS, []),
        (
            replace(FACTS, clients=2, sampled=1),
            [
                "Only 1 of 2 clients trains in each round, so nothing is averaged; set num-supernodes=10 in"
                " --federation-config, or a larger 'fraction-train' than 0.2."
            ],
        ),
        (
            replace(FACTS, clients=1, sampled=1, client=None),
            ["There is only one client, so nothing is averaged; connect more nodes."],
        ),
    ],
)
def test_one_client_a_round_is_warned_of(facts: Facts, warned: list[str]) -> None:
    assert alone(facts) == warned


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
    warn_of_partition(RunConfig(partition=partition), [replace(_member(None), own_folder=own_folder)] * 2)
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
