"""Images per second from disk to the device: JPEGs in a pack, the decoded cache, and plain copies."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.data.full_size import jpeg
from benchmarks.data.repeated import write_repeated
from benchmarks.gpu.step import Scale, emit, scale, seconds
from data.images.decode import decode, resize
from data.images.decoded_cache import DecodedCache
from data.images.pixels import StoredPixels
from data.release import open_release
from learning.batches import ahead

PHOTO_SIDE = 256  # the release's images are so large on average


def rates(size: Scale, folder: Path, device: torch.device) -> None:
    photo = jpeg(1, PHOTO_SIDE, np.random.default_rng(1))
    emit("a JPEG", len(photo) / 1000, "kB")

    def one(_: int) -> np.ndarray:
        return resize(decode(photo), size.image_size, size.image_size)

    cores = len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for workers in sorted({1, cores}):
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


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        rates(scale(), Path(temporary), device)


if __name__ == "__main__":
    main()
