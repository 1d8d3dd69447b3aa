"""Which files of CIFAR are there, and what an archive may be."""

import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.images.decode import decode
from data.sources import cifar_files
from data.sources.cifar import png_of, read_cifar
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from tests.data import made_cifar as made


def sentence(source: Path, kind: Kind = CIFAR10) -> str:
    with pytest.raises(DataError) as error:
        read_cifar(source, kind)
    said = str(error.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("in_archive", [False, True])
def test_what_is_missing_is_named(form: str, in_archive: bool, tmp_path: Path) -> None:
    folder = (made.cifar10_python if form == "python" else made.cifar10_binary)(tmp_path)
    for name in ("data_batch_5", "batches.meta"):
        (
            folder / (name if form == "python" else {"data_batch_5": "data_batch_5.bin"}.get(name, f"{name}.txt"))
        ).unlink()
    place = made.archived(folder, tmp_path / "a.tar.gz") if in_archive else folder
    names = "data_batch_5, batches.meta" if form == "python" else "data_batch_5.bin, batches.meta.txt"
    assert sentence(place).startswith(f"{place} lacks {names}; CIFAR-10 has data_batch_1")


def test_the_other_dataset_is_recognised(tmp_path: Path) -> None:
    ten, hundred = made.cifar10_python(tmp_path), made.cifar100_python(tmp_path)
    archive = made.archived(hundred, tmp_path / "cifar-100-python.tar.gz")
    for place in (hundred, archive):
        assert sentence(place) == f"{place} holds CIFAR-100; import it with `python -m data import cifar100`."
    said = f"{ten} holds CIFAR-10; import it with `python -m data import cifar10`."
    assert sentence(ten, CIFAR100) == said
    assert len(read_cifar(tmp_path, CIFAR10).splits["noisy_train"]) == 50  # both are in this folder
    assert len(read_cifar(tmp_path, CIFAR100).splits["noisy_train"]) == 200


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    said = sentence(tmp_path / "cifar-10-python.tar.gz")
    assert said.startswith(
        f"{tmp_path / 'cifar-10-python.tar.gz'} is neither a folder nor a file; it must be the folder"
    )
    assert "holds no file of CIFAR-10" in sentence(tmp_path)


def test_an_archive_that_nobody_may_read_is_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.archived(made.cifar10_python(tmp_path / "in"), tmp_path / "a.tar.gz")

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)  # modes do not stop root
    assert sentence(path) == f"{path} cannot be read: Permission denied."


def test_the_python_form_comes_first(tmp_path: Path) -> None:
    made.cifar10_binary(tmp_path)
    made.cifar10_python(tmp_path)
    assert read_cifar(tmp_path, CIFAR10).root == tmp_path / "cifar-10-batches-py"


def test_other_things_are_refused(tmp_path: Path) -> None:
    allowed = "it must be the folder cifar-10-batches-py or cifar-10-batches-bin, the folder above it, or cifar-10-"
    assert f"{tmp_path} holds no file of CIFAR-10; {allowed}" in sentence(tmp_path)
    assert f"{tmp_path / 'no'} is missing; {allowed}" in sentence(tmp_path / "no")
    for odd in ("a\0b", "a\nb"):
        assert sentence(Path(odd)).startswith((f"{odd!r} is missing; it must", f"{odd!r} cannot be a path"))
    assert "cannot be read: File name too long" in sentence(Path("x" * 300))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(600))
    assert f"{tmp_path / 'a.zip'} is no .tar.gz file; {allowed}" in sentence(tmp_path / "a.zip")
    made.archived(tmp_path, tmp_path / "b.tar.gz")
    assert f"{tmp_path / 'b.tar.gz'} holds no file of CIFAR-10; {allowed}" in sentence(tmp_path / "b.tar.gz")
    (tmp_path / "train").mkdir()  # folders of photos, and no file of CIFAR-100
    assert f"{tmp_path} holds no file of CIFAR-10; {allowed}" in sentence(tmp_path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = made.cifar10_binary(tmp_path_factory.mktemp("packed"), 1)
    return made.archived(folder, folder.parent / "a.tar.gz").read_bytes()


def test_an_archive_that_was_cut_off_is_refused(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    for end in [*range(18, len(packed), 997), *range(len(packed) - 8, len(packed))]:
        path.write_bytes(packed[:end])
        assert sentence(path) == f"{path} is damaged or not all there; download it again."


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_archive_is_refused(seed: int, packed: bytes, tmp_path: Path) -> None:
    """Gzip keeps a checksum of all; without it, a tar keeps one of its headers, and the rest is read or refused."""
    rng, path = random.Random(seed), tmp_path / "a.tar.gz"
    for _ in range(20):
        damaged = bytearray(packed)
        damaged[rng.randrange(18, len(packed))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert sentence(path).startswith(f"{path} ")
    plain = gzip.decompress(packed)
    for _ in range(40):
        damaged = bytearray(plain)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(plain) // 512) * 512 + rng.randrange(512)] = rng.randrange(256)
        path.write_bytes(damaged)
        said = f"{path} "
        try:
            read_cifar(path, CIFAR10)
        except DataError as error:
            said = str(error)
        assert said.startswith(f"{path}")


def write_members(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_files, "MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(cifar_files, "MOST_MEMBERS", 50)
    path = tmp_path / "a.tar.gz"
    for name in ("data_batch_1", "other"):
        write_members(path, [(tarfile.TarInfo(name), bytes(2 << 20))])
        assert sentence(path) == f"{path} unpacks to more than 1,048,576 bytes; it must be as published."
    write_members(path, [(tarfile.TarInfo("x"), b"")])
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(2 << 20)))  # after the end of the tar
    assert sentence(path) == f"{path} unpacks to more than 1,048,576 bytes; it must be as published."
    write_members(path, [(tarfile.TarInfo(f"x{number}"), b"") for number in range(51)])
    assert sentence(path) == f"{path} holds more than 50 files; it must be as published."


def test_a_sparse_member_is_no_bomb(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.pax_headers = {
        "GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1",
        "GNU.sparse.realsize": str(1 << 40), "GNU.sparse.name": info.name,
    }  # fmt: skip
    path = write_members(tmp_path / "a.tar.gz", [(info, b"x")])
    assert "a.tar.gz has a sparse file, data_batch_1; it must be as published." in sentence(path)


def test_members_are_found_by_their_names_and_nothing_is_written(tmp_path: Path) -> None:
    folder = made.cifar10_python(tmp_path / "made")
    members = [(tarfile.TarInfo(f"../../x/{file.name}"), file.read_bytes()) for file in sorted(folder.iterdir())]
    aside = [(tarfile.TarInfo(f"../../x/._{file.name}"), b"of a Mac") for file in folder.iterdir()]
    link = tarfile.TarInfo("data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "in").mkdir()
    path = write_members(tmp_path / "in" / "a.tar.gz", [*aside, *members, (link, b"")])
    before = sorted(tmp_path.rglob("*"))
    source = read_cifar(path, CIFAR10)
    assert np.array_equal(source.splits["noisy_train"].true, made.train_labels())
    assert sorted(tmp_path.rglob("*")) == before
    write_members(path, [*members, (tarfile.TarInfo("again/test_batch"), b"")])
    assert sentence(path) == f"{path} has two files called test_batch; it must be as published."


def test_pngs_hold_what_they_are_made_of() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((32, 32), (1, 1), (3, 50)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(decode(png_of(pixels)), pixels)
