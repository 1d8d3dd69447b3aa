"""What the cache of decoded images is good for when it cannot hold all: hits, and bytes written, over a whole run.

    python -m benchmarks.data.cache_policy [--clients 100] [--rounds 40] [--share 0.3]

Nothing is trained, and images are tiny: in each round some clients are drawn, and each asks for its list. Rows are for
clients drawn at random, and in turn. Bytes written are in multiples of all images' bytes.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import typer

from benchmarks.data.repeated import write_repeated
from benchmarks.tools.command import run_command
from benchmarks.tools.report import report
from data.images import decoded_cache
from data.images.decoded_cache import DecodedCache
from data.images.loading import load_images
from data.release import open_release

EACH, SIZE = 2, 16  # images of a client, and their side
PACKAGES = ("numpy",)


def visited(work: Path, orders: list[np.ndarray], clients: int, share: float) -> tuple[float, float]:
    """The share of visits that find their images in the cache, and the bytes written, in multiples of all."""
    release = open_release(work / "pack")
    lists = np.split(release.split("noisy_train").keys, clients)
    everything = clients * EACH * SIZE * SIZE * 3
    with (
        mock.patch.object(decoded_cache, "load_images", wraps=load_images) as decoded,
        mock.patch.object(os, "posix_fallocate", wraps=os.posix_fallocate) as allocated,
        tempfile.TemporaryDirectory(dir=work) as folder,
    ):
        cache = DecodedCache(Path(folder), int(share * everything))
        for order in orders:
            for client in order:
                cache.images(release, lists[client], SIZE)
    visits = sum(map(len, orders))
    written = sum(call.args[2] for call in allocated.call_args_list)
    return 1 - decoded.call_count / visits, written / everything


def main(
    clients: Annotated[int, typer.Option(help="How many there are.")] = 100,
    rounds: Annotated[int, typer.Option(help="Rounds of the run.")] = 40,
    share: Annotated[float, typer.Option(help="Of all images, which the cache can hold.", min=0, max=1)] = 0.3,
) -> None:
    rng = np.random.default_rng(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_repeated(Path(folder) / "pack", clients * EACH, 32)
        for sampled in (clients // 20, clients // 10):
            drawn = [rng.permutation(clients)[:sampled] for _ in range(rounds)]
            turn = np.resize(np.arange(clients), rounds * sampled)
            for name, orders in (("at random", drawn), ("in turn", np.split(turn, rounds))):
                hits, written = visited(Path(folder), orders, clients, share)
                rows.append((f"{sampled} of {clients} {name}", 100 * hits, written))
    report(f"a cache for {share:.1%} of the images", ("a round", "hits in %", "written"), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
