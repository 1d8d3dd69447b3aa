"""From measurements to a recommendation."""

from dataclasses import replace

import pytest

from config.run_config import RunConfig
from probe import session
from probe.concurrent import Trial
from probe.errors import NoRoomError
from probe.recommendation import (
    Hardware,
    Needs,
    candidates,
    choose,
    federation,
    reason,
    share_of_each,
    shortage,
)
from probe.session import try_all
from simulation.capacity import GIB, Share, clients_at_once

CPU = Hardware(cpus=8, memory=16 * GIB)
GPU = Hardware(cpus=16, memory=64 * GIB, gpus=1, gpu_memory=80 * GIB)
NEEDS = Needs(server=2 * GIB, client=GIB // 2)
GPU_NEEDS = replace(NEEDS, server_gpu=4 * GIB)


def _trials(rates: dict[int, float], peak: float = 1.0, gpu: float = 0.0, hardware: Hardware = CPU) -> list[Trial]:
    """`peak` GiB of memory and `gpu` GiB of the GPU for each client."""
    return [
        Trial(count, share_of_each(count, hardware, NEEDS), rate, GIB // 2, int(peak * GIB), int(count * gpu * GIB))
        for count, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("hardware", "sampled", "counts"),
    [
        (CPU, 100, [1, 2, 4, 8]),
        (replace(CPU, cpus=6), 100, [1, 2, 4, 6]),
        (CPU, 2, [1, 2]),
        (CPU, 1, [1]),
        (replace(GPU, gpus=4), 10, [1, 2, 3]),  # ten on four GPUs
        (replace(GPU, gpus=4), 100, [1, 2, 4]),  # a CPU for each
        (replace(GPU, cpus=1, gpus=4), 100, [1]),
    ],
)
def test_what_is_tried(hardware: Hardware, sampled: int, counts: list[int]) -> None:
    assert candidates(hardware, sampled) == counts


@pytest.mark.parametrize("at_once", range(1, 33))
@pytest.mark.parametrize("server_gpu", [0, 4 * GIB, 30 * GIB])
def test_shares_have_room_for_just_so_many(at_once: int, server_gpu: int) -> None:
    hardware = replace(GPU, cpus=64, gpus=2)
    share = share_of_each(at_once, hardware, replace(NEEDS, server_gpu=server_gpu))
    assert clients_at_once([Share(64, 2)], share) == 2 * at_once
    assert share.cpus == max(1, 32 // at_once)


def test_the_servers_part_of_a_gpu_stays_free() -> None:
    assert share_of_each(4, GPU, GPU_NEEDS) == Share(4, 0.237)
    assert share_of_each(4, GPU, NEEDS) == Share(4, 0.25)
    assert share_of_each(1, GPU, GPU_NEEDS) == Share(16, 1)


def test_more_clients_are_chosen_only_if_they_gain() -> None:
    trials = _trials({1: 100, 2: 150, 4: 153, 8: 149})
    best = choose(trials, CPU, NEEDS)
    assert best.at_once == 2
    text = "2 clients at once train 1.50 times as many images a second as one alone"
    assert reason(best, trials, CPU, NEEDS, 10) == f"{text}; more are no faster."
    assert reason(best, trials[:2], CPU, NEEDS, 2) == f"{text}; no more than 2 train in a round."
    assert choose(_trials({1: 100, 2: 101, 4: 102, 8: 104}), CPU, NEEDS).at_once == 8


def test_one_client_may_be_best() -> None:
    trials = _trials({1: 100, 2: 90})
    assert choose(trials, CPU, NEEDS).at_once == 1
    assert reason(trials[0], trials, CPU, NEEDS, 10) == "One client at a time is about as fast as several."
    assert reason(trials[0], trials[:1], CPU, NEEDS, 1) == "One client at a time; no more than 1 train in a round."


def test_memory_limits_the_clients_of_a_cpu() -> None:
    trials = _trials({1: 100, 2: 150, 4: 200, 8: 250}, peak=3)
    best = choose(trials, CPU, NEEDS)
    assert best.at_once == 4  # 4 * 3.5 + 2 are the 16 GiB
    why = reason(best, trials, CPU, NEEDS, 100)
    assert why.endswith("; 8 at once and the server need 30.0 GiB, and 16.0 are available.")
    with pytest.raises(NoRoomError, match=r"^one client and the server need 16.5 GiB, and 16.0 are available; use a"):
        choose(_trials({1: 100}, peak=14), CPU, NEEDS)


def test_memory_limits_the_clients_of_a_gpu() -> None:
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=18, hardware=GPU)
    assert shortage(trials[-1], GPU, GPU_NEEDS) == ""  # 4 * 18 + 4 are 95 % of 80
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=18.1, hardware=GPU)
    best = choose(trials, GPU, GPU_NEEDS)
    assert best.at_once == 2
    assert reason(best, trials, GPU, GPU_NEEDS, 10) == (
        "2 clients at once train 1.50 times as many images a second as one alone; 4 at once and the server need"
        " 76.4 GiB of a GPU, and it can give 76.0."
    )
    with pytest.raises(NoRoomError, match=r"one client and the server need 79.0 GiB of a GPU, and it can give 76.0"):
        choose(_trials({1: 1000}, gpu=75, hardware=GPU), GPU, GPU_NEEDS)


def test_memory_of_the_machine_limits_the_clients_of_many_gpus() -> None:
    hardware = replace(GPU, gpus=8, cpus=64, memory=32 * GIB)
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=5, hardware=hardware)
    best = choose(trials, hardware, GPU_NEEDS)
    assert best.at_once == 2  # 16 * 1.5 + 2
    assert reason(best, trials, hardware, GPU_NEEDS, 100) == (
        "2 clients at once on each GPU train 1.50 times as many images a second as one alone; 32 at once and the"
        " server need 50.0 GiB, and 32.0 are available."
    )


def test_what_is_tried_ends_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {1: 100.0, 2: 160.0, 4: 161.0, 8: 400.0}

    def measured(config: RunConfig, at_once: int, share: Share, steps: int, images: int) -> Trial:
        if rates[at_once] == 0:
            raise NoRoomError("its 0.125 of a GPU is too little.")
        return Trial(at_once, share, rates[at_once], GIB, GIB, at_once * GIB)

    monkeypatch.setattr(session, "try_clients", measured)

    def tried(hardware: Hardware) -> list[int]:
        return [trial.at_once for trial in try_all(RunConfig(), hardware, NEEDS, 1, 1, 100)]

    assert tried(GPU) == [1, 2, 4]
    assert tried(replace(CPU, memory=64 * GIB)) == [1, 2, 4, 8]  # a CPU is there to be filled
    assert tried(replace(CPU, memory=6 * GIB)) == [1, 2, 4]  # where memory has run out
    rates[2] = 0.0
    assert tried(GPU) == [1]
    rates[1] = 0.0
    with pytest.raises(NoRoomError, match=r"its 0.125 of a GPU"):
        tried(GPU)


def test_the_line_is_flowers() -> None:
    assert federation(10, Share(2, 0)) == "num-supernodes=10 client-resources-num-cpus=2"
    assert federation(100, Share(4, 0.237)) == (
        "num-supernodes=100 client-resources-num-cpus=4 client-resources-num-gpus=0.237"
    )
