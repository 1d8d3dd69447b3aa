"""Images per second from disk to the device: JPEGs in a pack, the decoded cache, and plain copies."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.data.full_size import jpeg
from benchmarks.data.repeated import write_repeated
from benchmarks.gpu.speed import config_of
from benchmarks.gpu.step import CLASSES, Scale, emit, scale, seconds
from client_app.local_data import DECODING_BESIDE
from data.images.decode import decode, resize
from data.images.decoded_cache import DecodedCache
from data.images.pixels import StoredPixels
from data.release import open_release
from learning.batches import ahead
from learning.images import Images
from learning.optimizer import LocalSGD
from learning.training import train_locally
from methods import build_method
from task import build_model, derived_generator, pick_compute

PHOTO_SIDE = 256  # the release's images are so large on average


def rates(size: Scale, folder: Path, device: torch.device) -> None:
    photo = jpeg(1, PHOTO_SIDE, np.random.default_rng(1))
    emit("a JPEG", len(photo) / 1000, "kB")

    def one(_: int) -> np.ndarray:
        return resize(decode(photo), size.image_size, size.image_size)

    cores = len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for workers in sorted({1, cores}) if device.type == "cuda" else [1]:
        with ThreadPoolExecutor(workers) as pool:
            count = size.photos * workers // cores or 1
            spent = seconds(lambda pool=pool, count=count: list(pool.map(one, range(count))), device)  # type: ignore[misc]
            emit(f"decode and resize to {size.image_size} pixels, {workers} threads", count / spent, "images/s")
    torch.set_num_threads(threads)
    write_repeated(folder / "release.pack", size.photos, PHOTO_SIDE)
    release = open_release(folder / "release.pack")
    keys = release.split("noisy_train").keys
    cache = DecodedCache(folder / "cache", 1 << 40)
    found: list[np.ndarray] = []
    first = seconds(lambda: found.append(cache.images(release, keys, size.image_size)), device)
    emit("a client's first visit: pack to decoded images", size.photos / first, "images/s")
    later = seconds(lambda: found.append(np.array(cache.images(release, keys, size.image_size))), device)
    emit("later visits: cache to memory", size.photos / later, "images/s")
    images = torch.from_numpy(found[1])
    whole = seconds(lambda: images.to(device), device)
    emit("memory to the device, all at once", size.photos / whole, "images/s")
    if device.type == "cuda":
        rows = list(torch.randperm(size.photos).split(size.batch_size))  # type: ignore[no-untyped-call]
        streamed = seconds(lambda: list(ahead(StoredPixels(found[1]), rows, device)), device)
        emit("memory to the device, batches copied ahead", size.photos / streamed, "images/s")


def first_visits(size: Scale, folder: Path, device: torch.device) -> None:
    """A client's first visit of one epoch, with all images decoded before it and with images that arrive meanwhile."""
    release = open_release(folder / "release.pack")
    keys = release.split("noisy_train").keys
    compute, config = pick_compute("auto", autotune=True), config_of(size)
    labels = torch.zeros(len(keys), dtype=torch.int64)
    model = build_model(size.model, CLASSES, seed=0).to(device)
    optimizer, method = LocalSGD(model), build_method(config)
    threads = len(os.sched_getaffinity(0))
    # Alone on the machine, and with a share of it.
    numbers = sorted({threads, max(1, threads // 8)}) if device.type == "cuda" else [1]

    def visit(number: int, arriving: bool) -> None:
        cache = DecodedCache(folder / f"first-{number}-{arriving}", 1 << 40)
        load = cache.arriving if arriving else cache.pixels
        pixels = load(release, keys, size.image_size, min(number, DECODING_BESIDE) if arriving else number)
        images = Images(pixels, device, stay=device.type != "cpu")
        train_locally(
            model, images, labels, method, config, compute, derived_generator(1, "visit"), optimizer=optimizer
        )  # fmt: skip

    for number in numbers:
        torch.set_num_threads(number)
        visit(number, False)  # kept from now on
        spent = {"later": seconds(lambda number=number: visit(number, False), device)}  # type: ignore[misc]
        for arriving in (False, True):
            shutil.rmtree(folder / f"first-{number}-{arriving}", ignore_errors=True)
            spent[str(arriving)] = seconds(lambda n=number, a=arriving: visit(n, a), device)  # type: ignore[misc]
        what = f"a visit of {len(keys)} images, {number} threads"
        emit(f"{what}: images already decoded", spent["later"], "s")
        emit(f"{what}: decoded before the first step", spent["False"], "s")
        emit(f"{what}: decoded while it trains", spent["True"], "s")
    torch.set_num_threads(threads)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        rates(scale(), Path(temporary), device)
        first_visits(scale(), Path(temporary), device)


if __name__ == "__main__":
    main()
