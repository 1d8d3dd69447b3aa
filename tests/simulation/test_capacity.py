"""How many clients fit, and the error if not even one does."""

import re
from pathlib import Path
from typing import Any

import pytest

from simulation.capacity import Share, check_request, clients_at_once, machines_of, memory_bytes, share_of

ONE_GPU = Share(16, 1)


@pytest.mark.parametrize(
    ("machines", "client", "count"),
    [
        ([Share(2, 0)], Share(1, 0), 2),
        ([Share(3, 0)], Share(2, 0), 1),
        ([Share(2, 0), Share(4, 0)], Share(3, 0), 1),  # not two: no client is spread over machines
        ([Share(2, 0)], Share(1, 0.5), 0),
        ([ONE_GPU], Share(2, 0.25), 4),
        ([ONE_GPU], Share(8, 0.25), 2),  # as many as the CPUs allow
        ([ONE_GPU], Share(1, 0.1), 10),
        ([ONE_GPU], Share(1, 0.3333), 3),
        ([ONE_GPU], Share(1, 0.33335), 3),  # Ray sees 0.3333
        ([ONE_GPU], Share(1, 0.6), 1),
        ([Share(16, 2)], Share(1, 0.4), 4),  # 2 / 0.4 is 5
        ([Share(16, 3)], Share(1, 2), 1),
        ([], Share(1, 0), 0),
    ],
)
def test_clients_at_once(machines: list[Share], client: Share, count: int) -> None:
    assert clients_at_once(machines, client) == count


@pytest.mark.parametrize("count", range(1, 41))
def test_one_nth_of_a_gpu_fits_n_times(count: int) -> None:
    assert clients_at_once([Share(64, 1)], Share(1, 1 / count)) == count


def test_resources_of_ray_and_flower_are_parsed() -> None:
    nodes: list[dict[str, Any]] = [
        {"Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 7e9}},
        {"Resources": {}},
        {"Resources": {"CPU": 2.0}},
    ]
    assert machines_of(nodes) == [Share(4, 1), Share(2, 0)]
    assert share_of({"num_cpus": 2, "num_gpus": 0.25}) == Share(2, 0.25)
    assert share_of({"num_cpus": 2}) == Share(2, 0)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Share(1, 0), "1 CPU and no GPU"),
        (Share(2, 0.25), "2 CPUs and 0.25 GPU"),
        (Share(0, 2), "no CPU and 2 GPUs"),
    ],
)
def test_shares_in_words(share: Share, text: str) -> None:
    assert str(share) == text


@pytest.mark.parametrize(
    ("machines", "client", "sentence"),
    [
        (
            [Share(2, 0)],
            Share(64, 0),
            "each client requests 64 CPUs and no GPU, but this machine has 2 CPUs and no GPU;"
            " set client-resources-num-cpus=2.",
        ),
        (
            [Share(2, 0)],
            Share(1, 0.5),
            "each client requests 1 CPU and 0.5 GPU, but this machine has 2 CPUs and no GPU;"
            " set client-resources-num-gpus=0.",
        ),
        (
            [Share(4, 1)],
            Share(8, 2),
            "each client requests 8 CPUs and 2 GPUs, but this machine has 4 CPUs and 1 GPU;"
            " set client-resources-num-cpus=4 and client-resources-num-gpus=1.",
        ),
        (
            [Share(8, 0), Share(4, 1)],
            Share(8, 0.5),
            "each client requests 8 CPUs and 0.5 GPU, but the largest of 2 machines has 4 CPUs and 1 GPU;"
            " set client-resources-num-cpus=4.",
        ),
        ([Share(2, 0)], Share(0, 0), "client-resources-num-cpus is 0; it must be at least 1."),
        (
            [ONE_GPU],
            Share(1, 1.5),
            "client-resources-num-gpus is 1.5; it must be 0, from 0.0001 to 1, or a whole number.",
        ),
        (
            [ONE_GPU],
            Share(1, -1),
            "client-resources-num-gpus is -1; it must be 0, from 0.0001 to 1, or a whole number.",
        ),
    ],
)
def test_clients_that_do_not_fit_are_refused(machines: list[Share], client: Share, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'--federation-config: {sentence}')}$"):
        check_request(machines, client)


def test_clients_that_fit_are_accepted() -> None:
    check_request([Share(2, 0)], Share(2, 0))
    check_request([Share(2, 0), Share(8, 1)], Share(8, 0.25))


def test_memory_is_read_from_the_system(tmp_path: Path) -> None:
    assert memory_bytes(root=tmp_path) is None  # not Linux
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   2048 kB\n")
    assert memory_bytes("MemTotal", tmp_path) == 9000 << 10
    assert memory_bytes("MemAvailable", tmp_path) == 2048 << 10
    assert memory_bytes("MemFree", tmp_path) is None


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    cgroup = tmp_path / "sys/fs/cgroup"
    for folder in (cgroup, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   8000 kB\n")
    (cgroup / "memory.current").write_text("3000\n")
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 1200\n")
    (cgroup / "memory.max").write_text("5000\n")
    assert memory_bytes("MemTotal", tmp_path) == 5000
    assert memory_bytes("MemAvailable", tmp_path) == 5000 - 3000 + 1200
    (cgroup / "memory.max").write_text("max\n")
    assert memory_bytes("MemTotal", tmp_path) == 9000 << 10
