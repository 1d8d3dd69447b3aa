"""Clients keep to their share: stand-ins for Ray and torch's CUDA record the calls."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict

from client_app.app import errors_as_replies
from config.run_config import ConfigError
from messages.keys import REFUSED
from simulation import share
from simulation.capacity import GIB, Share
from simulation.share import assigned, hold_to_share, out_of_memory
from tests.fakes import instruction


class Cuda:
    """One GPU, of `total` bytes."""

    def __init__(self, total: int = 16 * GIB) -> None:
        self.total, self.free, self.allocated, self.peak = total, total, 0, 0
        self.calls: list[tuple[float, Any]] = []

    def replace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("is_available", "is_initialized"):
            monkeypatch.setattr(torch.cuda, name, lambda: True)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *call: self.calls.append(call))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=self.total)
        )
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free, self.total))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def _in_an_actor(monkeypatch: pytest.MonkeyPatch, given: dict[str, float], actor: str | None = "a1") -> None:
    context = SimpleNamespace(get_actor_id=lambda: actor, get_assigned_resources=lambda: given)
    ray = SimpleNamespace(
        is_initialized=lambda: True, get_runtime_context=lambda: context, nodes=lambda: [{"Resources": {"CPU": 4.0}}]
    )
    monkeypatch.setitem(sys.modules, "ray", ray)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    cuda.replace(monkeypatch)
    return cuda


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    hold_to_share.cache_clear()
    monkeypatch.setattr(share, "_held", [])
    yield
    hold_to_share.cache_clear()
    torch.set_num_threads(threads)


def test_only_an_actor_of_ray_has_a_share(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    threads = torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert assigned() is None
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert assigned() is None
    _in_an_actor(monkeypatch, {}, actor=None)  # the driver
    assert hold_to_share() is None
    assert cuda.calls == []
    assert torch.get_num_threads() == threads
    assert share.free_gpu_bytes() == cuda.total


@pytest.mark.parametrize(("cpus", "threads"), [(1.0, 1), (2.0, 2), (0.5, 1), (2.5, 2)])
def test_threads_are_the_clients_cpus(monkeypatch: pytest.MonkeyPatch, cpus: float, threads: int) -> None:
    torch.set_num_threads(3)
    _in_an_actor(monkeypatch, {"CPU": cpus})
    assert hold_to_share() == Share(cpus, 0)
    assert torch.get_num_threads() == threads


def test_a_quarter_of_a_gpu_is_a_quarter_of_its_memory(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    """CUDA's own half GiB included; set once, whatever the number of messages."""
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": 0.25})
    assert hold_to_share() == hold_to_share() == Share(1, 0.25)
    ((fraction, device),) = cuda.calls
    assert fraction == (4 - 0.5) / 16
    assert device == 0  # the first that Ray shows


@pytest.mark.parametrize("gpus", [1.0, 2.0])
def test_whole_gpus_have_no_limit(monkeypatch: pytest.MonkeyPatch, cuda: Cuda, gpus: float) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": gpus})
    hold_to_share()
    assert cuda.calls == []
    assert share.free_gpu_bytes() == cuda.total


def test_a_visible_gpu_that_was_not_given_is_refused(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0})
    with pytest.raises(ConfigError, match="was given no GPU, but sees one"):
        hold_to_share()


def test_a_share_that_cuda_itself_fills_is_refused(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": 0.03125})
    with pytest.raises(ConfigError, match=r"'client-resources-num-gpus' is 0.03125, which is 0.5 GiB, and CUDA"):
        hold_to_share()


def test_a_handler_limits_itself_to_its_share_before_it_begins(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": 0.5})
    seen: list[int] = []

    @errors_as_replies
    def handler(message: Any, context: Context) -> Any:
        seen.append(len(cuda.calls))

    for _ in range(2):
        handler(instruction(), Context(1, 5, {"partition-id": 3}, RecordDict(), {}))
    assert seen == [1, 1]
    hold_to_share.cache_clear()
    _in_an_actor(monkeypatch, {"CPU": 1.0})
    reply = handler(instruction(), Context(1, 5, {"partition-id": 3}, RecordDict(), {}))
    assert reply.error.code == REFUSED
    assert str(reply.error.reason).startswith("client 3: federation config: the client was given no GPU")


def test_images_go_to_the_gpu_if_they_fit_into_half_of_the_share(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": 0.25})
    hold_to_share()
    cuda.allocated = GIB // 2
    assert share.free_gpu_bytes() == 3 * GIB
    cuda.free = 2 * GIB  # others hold the rest
    assert share.free_gpu_bytes() == 2 * GIB
    cuda.allocated = 4 * GIB
    assert share.free_gpu_bytes() == 0
    assert not share.has_room(1, torch.device("cuda"))


TEXT = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 16.00 GiB of which"


def test_too_little_memory_names_the_share_and_what_it_took(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": 0.25})
    hold_to_share()
    cuda.peak = int(3.4 * GIB)
    assert out_of_memory(torch.OutOfMemoryError(TEXT)) == (
        "its 0.25 of a GPU, 4.0 of 16.0 GiB, is too little: besides about 0.5 GiB for CUDA itself it had taken 3.4 GiB"
        " and needed 20.00 MiB more; use client-resources-num-gpus=0.5 in --federation-config, so that fewer clients"
        " share the GPU, or a smaller 'batch-size' or 'image-size'."
    )


@pytest.mark.parametrize(("given", "advised"), [(0.5, "1 "), (0.3333, "0.5 "), (0.1, "0.2 "), (0.6, "1 ")])
def test_the_advice_is_half_as_many_clients(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, given: float, advised: str
) -> None:
    _in_an_actor(monkeypatch, {"CPU": 1.0, "GPU": given})
    hold_to_share()
    assert f"use client-resources-num-gpus={advised}" in out_of_memory(torch.OutOfMemoryError(TEXT))


def test_too_little_memory_without_a_share_names_the_gpu(cuda: Cuda) -> None:
    cuda.peak = 15 * GIB
    assert out_of_memory(torch.OutOfMemoryError("CUDA error: out of memory\nmore")) == (
        "the GPU's 16.0 GiB is too little: it had taken 15.0 GiB and needed more (CUDA error: out of memory); use a"
        " smaller 'batch-size' or 'image-size'."
    )
