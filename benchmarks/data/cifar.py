"""CIFAR-10 at full size: reading it, importing it into a folder and into a pack, and one federated round from the pack.

    python -m benchmarks.data.cifar [--images 50000] [--clients 100] [--share 0.1] [--epochs 1] [--stem small]

The dataset is made here: random images, in the python form, byte for byte as Python 2 would write them. `--images` is
how many training images there are; a fifth as many are for testing. The round is ResNet-18 at 32 pixels with batches of
64, and ends with the test of the global model. `--clients 0` leaves the round out.
"""

import contextlib
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.report import Stopwatch, report
from data.sources.cifar import read_cifar
from data.sources.cifar_files import CIFAR10
from data.sources.writing import write_source

PACKAGES = ("numpy", "pillow", "torch")
CLASSES = (b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck")


def as_python2(values: Mapping[bytes, Any]) -> bytes:
    """A dict as Python 2 pickles it with protocol 2: texts are bytes, as the published files have them.

    Args:
        values: Bytes, whole numbers, arrays of uint8, and lists or tuples of these, all of which become lists.
    """
    return b"\x80\x02}(" + b"".join(_python2(key) + _python2(value) for key, value in values.items()) + b"u."


def _python2(value: Any) -> bytes:
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        assert value.dtype == np.uint8
        new = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        dtype = (
            b"cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
        return new + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"
    return b"](" + b"".join(map(_python2, value)) + b"e"


def write_cifar10(folder: Path, images: int, seed: int = 1) -> None:
    """Random images as CIFAR-10's python files.

    Args:
        folder: Is made.
        images: In all five batches together; the test batch has as many as one of them.
        seed: The same seed makes the same files.
    """
    rng = np.random.default_rng([seed, 0])
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in range(1, 6)]
    for name in (*names, "test_batch"):
        count = images // len(names)
        batch = {
            b"batch_label": name.encode(),
            b"labels": rng.permutation(np.arange(count) % len(CLASSES)).tolist(),
            b"data": rng.integers(0, 256, (count, 3072), np.uint8),
            b"filenames": [b"picture_s_%06d.png" % row for row in range(count)],
        }
        (folder / name).write_bytes(as_python2(batch))
    meta = {b"num_cases_per_batch": images // 5, b"label_names": CLASSES, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(as_python2(meta))


def imports(work: Path, images: int) -> list[tuple[str, float]]:
    """Seconds of each way to import it; the pack stays in `work`."""
    folder = work / CIFAR10.python.folder
    write_cifar10(folder, images)
    with tarfile.open(work / CIFAR10.python.archive, "w:gz", compresslevel=1) as archive:
        archive.add(folder, folder.name)
    rows = []
    for name, source in (("folder", folder), (".tar.gz", work / CIFAR10.python.archive)):
        with Stopwatch() as watch:
            read = read_cifar(source, CIFAR10)
        rows.append((f"reading the {name}", watch.seconds))
    for name, out in (("folder", work / "release"), ("pack", work / "cifar10.pack")):
        with Stopwatch() as watch:
            write_source(read, out)
        rows.append((f"writing a {name}", watch.seconds))
    return rows


def one_round(work: Path, clients: int, **settings: Any) -> list[tuple[str, float]]:
    """Seconds of a round from the pack, and of the whole run around it."""
    from benchmarks.tools.in_process import run_in_process

    with Stopwatch() as watch, contextlib.redirect_stdout(io.StringIO()):
        run = run_in_process(
            work, clients, data_dir=str(work / "cifar10.pack"), model="resnet18", image_size=32, batch_size=64,
            num_server_rounds=1, val_split="none", **settings,
        )  # fmt: skip
    line = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return [("one round", line["seconds"]), ("the run of one round", watch.seconds)]


def main(
    images: Annotated[int, typer.Option(help="Training images.", min=50)] = 50_000,
    clients: Annotated[int, typer.Option(help="How many share them; 0: no round.", min=0)] = 100,
    share: Annotated[float, typer.Option(help="Of the clients, which trains.", min=0, max=1)] = 0.1,
    epochs: Annotated[int, typer.Option(help="Of each client that trains.", min=1)] = 1,
    stem: Annotated[str, typer.Option(help="Of the ResNet: small or imagenet.")] = "small",
) -> None:
    settings: dict[str, Any] = {"fraction_train": share, "local_epochs": epochs, "stem": stem}
    with tempfile.TemporaryDirectory() as folder:
        rows = imports(Path(folder), images)
        if clients:
            rows += one_round(Path(folder), clients, **settings)
    report(f"CIFAR-10 of {images:,} + {images // 5:,} images", ("", "seconds"), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
