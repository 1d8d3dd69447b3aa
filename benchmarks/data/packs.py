"""Packs: what making one costs, and what a visit to a client costs whose images are in a pack of pixels.

    python -m benchmarks.data.packs [--images 4000] [--visited 10000] [--size 224] [--repeats 3]

- Making packs: from `--images` drawn garments of 256 pixels with grain, about 22 KB each, with all cores. The last
  column extrapolates the bytes and the time to Clothing1M's 1,072,409 images.
- Visits: `--visited` images, all of a pack of pixels, in memory as after the first of several visits. Each visit is a
  process of its own, as in deployment; its time is from an open pack to the last batch of one shuffled epoch. Memory is
  what the process has of its own (anonymous pages), more than before it opened the pack.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.data.__main__ import draw_release
from benchmarks.data.repeated import write_repeated
from benchmarks.tools.command import run_command
from benchmarks.tools.report import Stopwatch, report
from data.check import PUBLISHED
from data.pack_writer import Packing, write_pack
from data.release import open_release

PACKAGES = ("pillow", "simplejpeg", "numpy", "torch")
VISIT = """
import json, re, sys, time
from pathlib import Path
import numpy as np
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.images.pixels import StoredPixels
from data.release import open_release

def own_mib():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"Anonymous:\\s*(\\d+) kB", text)[1]) / 1024

path, cache, size, how = sys.argv[1:]
release = open_release(Path(path))
keys = release.split("noisy_train").keys
order = np.random.default_rng(1).permutation(len(keys))
before, start = own_mib(), time.perf_counter()
if how == "copy":
    images = StoredPixels(load_images(release, keys, int(size)))
else:
    images = DecodedCache(Path(cache), 0).pixels(release, keys, int(size))
ready = time.perf_counter() - start
batch = np.empty((64, *images.shape[1:]), np.uint8)
for first in range(0, len(order), 64):
    rows = order[first : first + 64]
    images.take(rows, batch[: len(rows)])
print(json.dumps({"ready": ready, "seconds": time.perf_counter() - start, "mib": own_mib() - before}))
"""


def making(work: Path, images: int, size: int) -> list[tuple[str, float, float, str]]:
    """For each kind of pack images per second, kB an image, and both for all of Clothing1M."""
    release = draw_release(work / "release", images)
    kinds = {
        "none": Packing(),
        f"--image-size {size}": Packing(size),
        f"--image-size {size} --decoded": Packing(size, decoded=True),
    }
    rows, everything = [], sum(PUBLISHED.values())
    for number, (options, packing) in enumerate(kinds.items()):
        out = work / f"{number}.pack"
        with Stopwatch() as watch:
            write_pack(release, out, packing, threads=len(os.sched_getaffinity(0)))
        count, length = len(release.index.keys), out.stat().st_size
        out.unlink()
        minutes, gib = everything / count * watch.seconds / 60, everything / count * length / 2**30
        rows.append((options, count / watch.seconds, length / count / 1000, f"{minutes:.0f} min, {gib:,.0f} GiB"))
    return rows


def visits(work: Path, images: int, size: int, repeats: int) -> list[tuple[str, float, float, float]]:
    """For each kind of visit images per second, milliseconds until the first batch, and MiB."""
    write_repeated(work / "files.pack", images, 256)
    write_pack(open_release(work / "files.pack"), work / "pixels.pack", Packing(size, decoded=True), threads=2)
    found: dict[str, list[dict[str, float]]] = {}
    for repeat in range(repeats):
        for name, how in (("copy and verify at each visit", "copy"), ("first visit", "map"), ("later visits", "map")):
            argv = [sys.executable, "-c", VISIT, f"{work}/pixels.pack", f"{work}/cache {repeat}", str(size), how]
            done = subprocess.run(argv, capture_output=True, check=True, text=True)
            found.setdefault(name, []).append(json.loads(done.stdout))
    rows = []
    for name, results in found.items():
        seconds, ready, mib = (
            statistics.median(result[key] for result in results) for key in ("seconds", "ready", "mib")
        )
        rows.append((name, images / seconds, 1000 * ready, mib))
    return rows


def main(
    images: Annotated[int, typer.Option(help="Images to pack.")] = 4000,
    visited: Annotated[int, typer.Option(help="Images of the client that is visited.")] = 10_000,
    size: Annotated[int, typer.Option(help="Side of the pixels.")] = 224,
    repeats: Annotated[int, typer.Option(help="Visits of each kind.")] = 3,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = making(Path(folder), images, size)
        seen = visits(Path(folder), visited, size, repeats)
    report("making packs", ("options", "images/s", "kB an image", "all of Clothing1M"), made, PACKAGES)
    report(f"visits of {visited:,} images", ("", "images/s", "ms until the first batch", "MiB"), seen, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
