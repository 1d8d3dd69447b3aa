"""What the log reports about machines, and which setting it recommends."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from server_app.members import Member
from server_app.resources import Facts, alone, describe, gather, warnings
from simulation.capacity import GIB, Share
from tests.fakes import InProcessGrid

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


def _member(share: Share, compute: str = "cpu float32") -> Member:
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
