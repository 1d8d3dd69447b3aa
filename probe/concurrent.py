"""Clients that train at once on one machine, as processes, which is what Ray's actors are; and what they take of it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from config.run_config import ConfigError, RunConfig
from probe.errors import NoRoomError
from simulation.capacity import Share

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trial:
    """What was measured of some clients at once.

    Attributes:
        at_once: How many; 0: the server's evaluation.
        share: What each was given.
        images_per_second: Of all of them together.
        idle: Bytes that one process held before it made a model.
        peak: The most that one of them held in all.
        gpu: Bytes of the GPU that all of them took together, with what CUDA itself takes; 0 without a GPU.
    """

    at_once: int
    share: Share
    images_per_second: float
    idle: int
    peak: int
    gpu: int


def try_clients(config: RunConfig, at_once: int, share: Share, steps: int, images: int = 0) -> Trial:
    """Train `at_once` clients, each a process with its share of this machine, all started together once they are warm.

    Args:
        config: What they train; its data and number of epochs do not matter.
        at_once: How many.
        share: Threads of each, and its part of the first GPU.
        steps: Batches that each trains while it is measured.
        images: How many images one client holds: on a GPU they stay there, if they fit.

    Raises:
        NoRoomError: One of them had too little memory.
        ConfigError: The config cannot be trained.
    """
    job = {"role": "client", "config": config.to_flat(), "steps": steps, "images": images}
    replies, gpu = _run(job, share, at_once)
    rate = sum(reply["images"] / reply["seconds"] for reply in replies)
    peak = max(reply["peak"] for reply in replies)
    return Trial(at_once, share, rate, replies[0]["idle"], peak, gpu)


def try_server(config: RunConfig, share: Share) -> Trial:
    """Evaluate one batch, as the server does between rounds."""
    replies, gpu = _run({"role": "server", "config": config.to_flat()}, share, 1)
    return Trial(0, share, 0.0, replies[0]["idle"], replies[0]["peak"], gpu)


def gpu_total() -> int:
    """Bytes of the first GPU; 0 without one."""
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0


def _run(job: dict[str, Any], share: Share, count: int) -> tuple[list[dict[str, Any]], int]:
    """Replies of `count` processes, and the bytes of the GPU that they held at the end."""
    free = _gpu_free()
    with _processes(share, count) as processes:
        for process in processes:
            tell(process, {**job, "share": [share.cpus, share.gpus]})
        for process in processes:
            _hear(process)
        for process in processes:
            tell(process, "go")
        replies = [_hear(process) for process in processes]
        return replies, free - _gpu_free()


def _processes(share: Share, count: int) -> contextlib.AbstractContextManager[list["subprocess.Popen[str]"]]:
    environment = {"OMP_NUM_THREADS": str(max(1, int(share.cpus)))}
    if share.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return workers(["probe.client"], environment, count)


@contextlib.contextmanager
def workers(
    module: Sequence[str], environment: Mapping[str, str], count: int
) -> Iterator[list["subprocess.Popen[str]"]]:
    """`count` Python processes that run a module with its arguments, and talk through their stdin and stdout."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", *module], cwd=ROOT, env={**os.environ, **environment},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def tell(process: "subprocess.Popen[str]", what: Any) -> None:
    """Write `what` as a line of JSON to the process's stdin."""
    with contextlib.suppress(BrokenPipeError):  # it has ended, and its answer says why
        assert process.stdin is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        if code < 0:
            raise NoRoomError(f"a client was ended by signal {-code}, most likely because memory ran out")
        raise RuntimeError(f"a client ended with exit code {code}; what it printed says why.")
    reply: dict[str, Any] = json.loads(line)
    if "refused" in reply:
        raise ConfigError(reply["refused"])
    if "out of memory" in reply:
        raise NoRoomError(reply["out of memory"])
    return reply


def _gpu_free() -> int:
    return int(torch.cuda.mem_get_info(0)[0]) if torch.cuda.is_available() else 0
