"""CIFAR-10 and CIFAR-100 in miniature, in the exact forms that are published."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.data.cifar import as_python2

NAMES10 = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
FINE = [b"fine %d" % label for label in range(100)]
COARSE = [b"coarse %d" % label for label in range(20)]
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def raw_of(name: str, count: int) -> np.ndarray:
    """(count, 3072) uint8: the pixels of a file, which differ from file to file."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (count, 3072), np.uint8)


def labels_of(name: str, count: int, classes: int) -> list[int]:
    """As many of each class, in an order of each file's own."""
    rng = np.random.default_rng([1, *name.encode()])
    return [int(label) for label in rng.permutation(np.arange(count) % classes)]


def cifar10_python(top: Path, count: int = 10) -> Path:
    """The folder of the python form: `count` images in each file."""
    folder = top / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*BATCHES, "test_batch"):
        (folder / name).write_bytes(batch10(name, count))
    meta = {b"num_cases_per_batch": count, b"label_names": NAMES10, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(as_python2(meta))
    return folder


def batch10(name: str, count: int = 10, **changes: object) -> bytes:
    """A file of the python form; `changes` replaces parts of it by name."""
    batch: dict[bytes, object] = {
        b"batch_label": b"training batch 1 of 5",
        b"labels": labels_of(name, count, 10),
        b"data": raw_of(name, count),
        b"filenames": [b"picture_s_%06d.png" % row for row in range(count)],
    }
    batch |= {key.encode(): value for key, value in changes.items()}
    return as_python2({key: value for key, value in batch.items() if value is not None})


def cifar10_binary(top: Path, count: int = 10) -> Path:
    """The folder of the binary form, with the same images in the same order."""
    folder = top / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*BATCHES, "test_batch"):
        labels, raw = labels_of(name, count, 10), raw_of(name, count)
        records = [bytes([label]) + row.tobytes() for label, row in zip(labels, raw, strict=True)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_bytes(b"\n".join(NAMES10) + b"\n\n")
    return folder


def cifar100_python(top: Path, tests: int = 40) -> Path:
    folder = top / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count in (("train", 5 * tests), ("test", tests)):
        fine = labels_of(name, count, 100)
        batch = {
            b"filenames": [b"picture_s_%06d.png" % row for row in range(count)],
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": fine,
            b"coarse_labels": [label % 20 for label in fine],
            b"data": raw_of(name, count),
        }
        (folder / name).write_bytes(as_python2(batch))
    (folder / "meta").write_bytes(as_python2({b"fine_label_names": FINE, b"coarse_label_names": COARSE}))
    return folder


def cifar100_binary(top: Path, tests: int = 40) -> Path:
    folder = top / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name, count in (("train", 5 * tests), ("test", tests)):
        fine, raw = labels_of(name, count, 100), raw_of(name, count)
        records = [bytes([label % 20, label]) + row.tobytes() for label, row in zip(fine, raw, strict=True)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "fine_label_names.txt").write_bytes(b"".join(name + b"\n" for name in FINE))
    (folder / "coarse_label_names.txt").write_bytes(b"".join(name + b"\n" for name in COARSE))
    return folder


def archived(folder: Path, path: Path, prefix: str = "", mode: str = "w:gz") -> Path:
    """An archive of a folder's files."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, prefix or folder.name)
    return path


def train_labels(count: int = 10) -> np.ndarray:
    """CIFAR-10's training labels in the order of the python form."""
    return np.concatenate([labels_of(name, count, 10) for name in BATCHES])


def human_labels(top: Path, count: int) -> Path:
    """CIFAR-10N of `cifar10_python` with this count, with every label of one set wrong."""
    labels = train_labels(count)
    path = top / "CIFAR-10_human.pt"
    path.write_bytes(zipped(pickle.dumps({"clean_label": labels, "worse_label": (labels + 1) % 10}, 2)))
    return path


def zipped(pickled: bytes, storages: Sequence[bytes] = (), top: str = "archive") -> bytes:
    """A pickle as a .pt file of today's form."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{top}/data.pkl", pickled)
        archive.writestr(f"{top}/byteorder", b"little")
        for key, data in enumerate(storages):
            archive.writestr(f"{top}/data/{key}", data)
        archive.writestr(f"{top}/version", b"3\n")
    return out.getvalue()


def in_a_row(pickled: bytes) -> bytes:
    """A pickle as a .pt file of the form before, without tensors."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    facts = b"\x80\x02}(X\x10\x00\x00\x00protocol_versionM\xe9\x03X\r\x00\x00\x00little_endian\x88u."
    return magic + b"\x80\x02M\xe9\x03." + facts + pickled + b"\x80\x02]."
