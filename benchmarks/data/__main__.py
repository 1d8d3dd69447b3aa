"""From an image on disk to a normalised batch, and from the lists on disk into memory.

    python -m benchmarks.data [--images 1000] [--size 224] [--repeats 3] [--lists DIR]

Everything runs on one core; contenders take turns in each repeat. Images are drawn garments of 256 pixels with grain,
about 22 KB each, as the release's are on average.

- notebook: a Dataset that opens each file with Pillow in every epoch, torchvision's Resize, ToTensor and Normalize, and
  a DataLoader without workers (each worker would take a core of its own).
- folder, first epoch: decode into the cache on disk, then batches from it, as in a client's first visit.
- pack, first epoch: the same from a pack.
- later epochs: batches from the cache.
- decoders: only from bytes in memory to 224 x 224 pixels.

Lists: in a separate process for each figure, on the text files of `--lists` (a folder that `python -m
benchmarks.data.full_size DIR --lists-only` wrote; drawn into a temporary folder without it).
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torchvision import transforms

from benchmarks.data.full_size import write_full_size
from benchmarks.tools.command import run_command
from benchmarks.tools.report import Stopwatch, report
from data.images.decode import decode, resize
from data.images.decoded_cache import DecodedCache
from data.layout.writer import Labelled, draw_keys, write_annotations
from data.normalization import NORMALIZATIONS
from data.pack_writer import Packing, write_pack
from data.release import Release, open_release
from data.sample import NAMES, NAMES_CHN
from data.sample.garments import draw_garment
from task import Compute, to_input

GRAIN = 6.0  # standard deviation in levels; makes a drawn JPEG of 256 pixels about 22 KB
BATCH = 32
CPU = Compute(torch.device("cpu"), torch.float32)
PACKAGES = ("torch", "torchvision", "pillow", "simplejpeg", "numpy")
READ_INDEX = """
import json, re, sys, time
from pathlib import Path
from data.layout.index import read_index

def peak_mib():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

before = peak_mib()
start = time.perf_counter()
index = read_index(Path(sys.argv[1]), 14)
seconds = time.perf_counter() - start
print(json.dumps({"keys": len(index.keys), "seconds": seconds, "mib": peak_mib() - before}))
"""


def draw_release(folder: Path, images: int) -> Release:
    """A release of `images` noisy training images like photos in size, and one image in each other list."""
    rng = np.random.default_rng(1)
    counts = {"noisy_train": images, "clean_train": 1, "clean_val": 1, "clean_test": 1}
    keys = iter(draw_keys(sum(counts.values()), rng))
    splits = {}
    for name, count in counts.items():
        labels = rng.integers(0, len(NAMES), count)
        noisy = labels if name == "noisy_train" else np.full(count, -1)
        splits[name] = Labelled([next(keys) for _ in range(count)], labels, noisy)
        for key, label in zip(splits[name].keys, labels.tolist(), strict=True):
            picture = np.asarray(draw_garment(label, (256, 300), rng)) + rng.normal(0, GRAIN, (300, 256, 1))
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / key, "JPEG", quality=88)
    write_annotations(folder, NAMES, NAMES_CHN, splits, rng)
    return open_release(folder)


class Notebook(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """What the public notebook does for one image (Sprinter1999/Clothing1M_FedAvg), in words of our own."""

    def __init__(self, paths: list[str], size: int) -> None:
        mean, deviation = NORMALIZATIONS["imagenet"]
        self.paths = paths
        self.transform = transforms.Compose(
            [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(mean, deviation)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), row


def batches(images: np.ndarray) -> Iterator[torch.Tensor]:
    """One shuffled epoch as the training loop takes it."""
    stored = torch.from_numpy(images)
    for rows in torch.randperm(len(stored)).split(BATCH):  # type: ignore[no-untyped-call]
        yield to_input(stored.index_select(0, rows), CPU, "imagenet")


def image_rates(work: Path, images: int, size: int, repeats: int) -> list[tuple[str, float]]:
    """Images per second of each contender, median of repeats."""
    release = draw_release(work / "release", images)
    keys = release.split("noisy_train").keys
    with Stopwatch() as packing:
        write_pack(release, work / "pack", Packing())
    packed = open_release(work / "pack")
    files = [release.store.encoded(key) for key in keys]
    loader = torch.utils.data.DataLoader(
        Notebook([release.store.place(key) for key in keys], size), BATCH, shuffle=True
    )

    def first_epoch(source: Release) -> Callable[[], None]:
        def run() -> None:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                for _ in batches(DecodedCache(Path(folder), 1 << 40).images(source, keys, size)):
                    pass

        return run

    kept = DecodedCache(work / "kept", 1 << 40)
    kept.images(release, keys, size)
    contenders: dict[str, Callable[[], Any]] = {
        "notebook: folder, Pillow, DataLoader": lambda: [None for _ in loader],
        "folder, first epoch": first_epoch(release),
        "pack, first epoch": first_epoch(packed),
        "later epochs": lambda: [None for _ in batches(kept.images(release, keys, size))],
        "decoder: Pillow": lambda: [pillow(data, size) for data in files],
        "decoder: Pillow, PyTorch's resize": lambda: [
            resize(np.array(Image.open(io.BytesIO(data)).convert("RGB")), size, size) for data in files
        ],
        "decoder: simplejpeg, PyTorch's resize (ours)": lambda: [resize(decode(data), size, size) for data in files],
        "copying bytes of the same number": lambda: np.array(kept.images(release, keys, size)),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            with Stopwatch() as watch:
                run()
            times[name].append(watch.seconds)
    rates = [(name, images / statistics.median(seconds)) for name, seconds in times.items()]
    return [*rates, ("packing, image files as they are", images / packing.seconds)]


def pillow(data: bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def list_rows(lists: Path, cache: Path, repeats: int) -> list[tuple[str, float, float]]:
    """Seconds and MiB of reading the index for the first time and later."""
    rows = []
    for name in ("first read", "later reads"):
        seconds, mib = [], []
        for _ in range(repeats):
            if name == "first read":
                for path in (cache / "clothing1m-fl" / "index").glob("*"):
                    path.unlink()
            done = subprocess.run(
                [sys.executable, "-c", READ_INDEX, str(lists)], capture_output=True, check=True,
                env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            )  # fmt: skip
            result = json.loads(done.stdout)
            seconds.append(result["seconds"])
            mib.append(result["mib"])
        rows.append((name, statistics.median(seconds), max(mib)))
    return rows


def main(
    images: Annotated[int, typer.Option(help="Number of images.")] = 1000,
    size: Annotated[int, typer.Option(help="Side of the input in pixels.")] = 224,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
    lists: Annotated[Path | None, typer.Option(help="Folder with text files of full size.")] = None,
) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rates = image_rates(Path(folder), images, size, repeats)
        if lists is None:
            lists = Path(folder) / "lists"
            write_full_size(lists, drawn=0, image_size=16)
            time.sleep(3)  # lists that have just changed are not cached
        rows = list_rows(lists, Path(folder) / "cache", repeats)
    base = rates[0][1]
    table = [(name, rate, rate / base) for name, rate in rates]
    report(f"images per second and core at {size} pixels", ("", "images/s", "x notebook"), table, PACKAGES)
    report("reading 1,000,000 + 72,409 keys", ("", "seconds", "MiB above before"), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
