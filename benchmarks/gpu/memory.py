"""A client's part of a GPU is a limit: one that needs more is refused and recovers, and its neighbours continue."""

import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord

from benchmarks.data.repeated import write_repeated
from benchmarks.gpu.step import CLASSES, emit, scale
from benchmarks.tools.in_process import answer_alone
from config.run_config import RunConfig
from probe.concurrent import try_clients
from probe.errors import NoRoomError
from simulation.capacity import GIB, Share
from simulation.share import CONTEXT_BYTES, hold_to
from task import build_model

PART = 0.04  # of the GPU
TOO_MANY = 256  # images of 224 pixels in a batch take more than that to train a ResNet-50 in bf16


def context() -> None:
    """What CUDA takes in this process beyond PyTorch's own memory, after a training step."""
    free, total = torch.cuda.mem_get_info(0)
    emit("GPU memory", total / GIB, "GiB")
    model = build_model("resnet50", CLASSES, seed=0).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(torch.randn(8, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)).sum()
    loss.backward()
    torch.cuda.synchronize()
    taken = free - torch.cuda.mem_get_info(0)[0] - torch.cuda.memory_reserved(0)
    # The context itself was made by the first question about memory, so the probe of another process tells it.
    emit("CUDA's own memory after a step, excluding its context", taken / GIB, "GiB")


def train_message(config: RunConfig, batch_size: int) -> Any:
    arrays = ArrayRecord(build_model("resnet50", CLASSES, seed=1).state_dict())
    return answer_alone({**config.to_flat(), "batch-size": batch_size}, arrays)


def beyond_its_part(folder: Path) -> None:
    """One client of the real ClientApp: too large a batch, then one that fits."""
    write_repeated(folder / "release.pack", TOO_MANY, 224)
    config = RunConfig(
        data_dir=str(folder / "release.pack"), cache_dir=str(folder / "cache"), image_size=224, learning_rate=0.01
    )
    hold_to(Share(2, PART))
    reply = train_message(config, TOO_MANY)
    reason = reply.error.reason if reply.has_error() else "no error"
    emit(f"{PART:g} of a GPU, batches of {TOO_MANY}", reason, ok=f"its {PART:g} of a GPU" in reason)
    reply = train_message(config, 8)
    reason = reply.error.reason if reply.has_error() else "trains"
    emit("the same client afterwards, batches of 8", reason, ok=not reply.has_error())
    # Its own part includes what CUDA takes.
    most = PART * torch.cuda.get_device_properties(0).total_memory
    used = torch.cuda.max_memory_reserved(0) + CONTEXT_BYTES
    emit("most memory it took, of its part", used / most, ok=used <= most * 1.001, aim="at most 1")


def neighbours() -> None:
    """Processes, as Ray's actors are: one that asks for too much, while another trains."""
    size = scale()
    base = RunConfig(image_size=size.image_size, stem="imagenet", batch_size=size.batch_size)
    greedy = replace(base, batch_size=16 * TOO_MANY)
    rates: list[float] = []

    def neighbour() -> None:
        try:
            rates.append(try_clients(base, 1, Share(2, 0.25), 10 * size.steps).images_per_second)
        except Exception as error:
            emit("the client beside it", f"{type(error).__name__}: {error}", ok=False)

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        try_clients(greedy, 1, Share(2, 0.25), 1)
        emit("a client of 0.25 that asks for more", "trained", ok=False)
    except NoRoomError as error:
        emit("a client of 0.25 that asks for more", str(error), ok="its 0.25 of a GPU" in str(error))
    thread.join()
    if rates:
        emit("the client beside it", rates[0], "images/s", ok=True)


def main() -> None:
    if not torch.cuda.is_available():
        emit("memory", "needs a GPU")
        return
    neighbours()
    context()
    with tempfile.TemporaryDirectory() as temporary:
        beyond_its_part(Path(temporary))


if __name__ == "__main__":
    main()
