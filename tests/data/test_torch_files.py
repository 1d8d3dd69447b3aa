"""Files as torch.save writes them are read without PyTorch."""

import collections
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import DataError
from data.torch_files import read_torch
from tests.data.made_cifar import in_a_row, zipped


def saved(path: Path, value: Any, as_zip: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=as_zip)
    return path


@pytest.mark.parametrize("as_zip", [True, False])
def test_what_torch_saves_comes_back(as_zip: bool, tmp_path: Path) -> None:
    long = torch.arange(12)
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16, torch.float32, torch.float64]
    value = {
        "array": np.arange(300), "tensor": long.reshape(3, 4), "part": long[3:7], "row": long.reshape(3, 4)[1],
        "scalar": torch.tensor(7), "empty": torch.zeros(0, dtype=torch.int64), "list": [1, "a", (None, 2.5)],
        "ordered": collections.OrderedDict(a=long), **{str(kind): torch.tensor([1, 0, 1]).to(kind) for kind in kinds},
    }  # fmt: skip
    found = read_torch(saved(tmp_path / "x.pt", value, as_zip))
    assert list(found) == list(value)
    assert found["list"] == value["list"]
    for name in ("tensor", "part", "row", "scalar", "empty", *map(str, kinds)):
        assert found[name].tolist() == value[name].tolist(), name  # type: ignore[attr-defined]
        assert found[name].dtype == value[name].numpy().dtype  # type: ignore[attr-defined]
    assert found["array"].tolist() == list(range(300))
    assert found["ordered"]["a"].tolist() == list(range(12))


@pytest.mark.parametrize("as_zip", [True, False])
def test_what_is_no_row_of_numbers_is_refused(as_zip: bool, tmp_path: Path) -> None:
    def refused(value: Any, sentence: str) -> None:
        with pytest.raises(DataError) as error:
            read_torch(saved(tmp_path / "x.pt", value, as_zip))
        assert f"{tmp_path / 'x.pt'} {sentence}; it must be" in str(error.value)

    refused(torch.arange(12).reshape(3, 4).T, "has a tensor whose items do not lie in their order")
    refused(torch.ones(1).expand(10**9), "has a tensor whose items do not lie in their order")
    refused(torch.nn.Linear(2, 2), "asks for 'torch.nn.modules.linear.Linear', which was not run")
    refused(torch.nn.Parameter(torch.ones(2)), "asks for 'torch._utils._rebuild_parameter', which was not run")
    refused(torch.ones(2, dtype=torch.complex64), "asks for 'torch.ComplexFloatStorage', which was not run")


def tensor_pickle(first: int, size: int, step: int, count: int) -> bytes:
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nLongStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"
        + bytes([count])
        + b"tQ"
    )
    sizes = b"".join(b"K" + bytes([number]) + b"\x85" for number in (size, step))
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K" + bytes([first]) + sizes
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


def test_tensors_stay_inside_of_their_storages(tmp_path: Path) -> None:
    path, eight = tmp_path / "x.pt", np.arange(8, dtype="<i8").tobytes()

    def found(*numbers: int, data: bytes = eight) -> Any:
        path.write_bytes(zipped(tensor_pickle(*numbers), [data]))
        return read_torch(path)

    assert found(2, 3, 1, 8).tolist() == [2, 3, 4]
    for numbers, data, sentence in (
        ((6, 3, 1, 8), eight, "has a tensor that is larger than what it is made of"),
        ((0, 9, 1, 8), eight, "has a tensor that is larger than what it is made of"),
        ((0, 3, 2, 8), eight, "has a tensor whose items do not lie in their order"),
        ((0, 9, 1, 9), eight, "has an array of shape (9,) with 64 bytes, which do not fit it"),
        ((0, 8, 1, 8), b"", "has an array of shape (8,) with 0 bytes, which do not fit it"),
    ):
        with pytest.raises(DataError) as error:
            found(*numbers, data=data)
        assert sentence in str(error.value)


def test_other_files_are_no_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    compressed = zipped(b"N.")
    for data, sentence in (
        (b"", "is not a file that torch.save has written"),
        (b"\x93NUMPY\x01\x00", "is not a file that torch.save has written"),
        (pickle.dumps({"clean_label": [1]}, 2), "is not a file that torch.save has written"),
        (pickle.dumps(np.arange(3), 2), "is not a file that torch.save has written"),
        (in_a_row(b"N.").replace(b"little_endian\x88", b"little_endian\x89"), "in another order of bytes"),
        (compressed.replace(b"little", b"bignum"), "is damaged"),  # of which the zip file keeps a checksum
        (compressed.replace(b"data.pkl", b"data.pkt"), "is a zip file with 0 files called data.pkl"),
        (compressed[:-10], "is damaged: it is not a whole zip file"),
        (compressed[:40], "is damaged: it is not a whole zip file"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError) as error:
            read_torch(path)
        assert sentence in str(error.value)
    path.unlink()
    with pytest.raises(DataError, match=r"x\.pt is missing; it must be a file as published\.$"):
        read_torch(path)
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"x\.pt is not a file; it must be a file as published\.$"):
        read_torch(path)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_damaged_torch_files_end_in_a_sentence(seed: int, as_zip: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"a": np.arange(9), "b": torch.arange(5), "c": [1]}, as_zip)
    rng, data = random.Random(seed), path.read_bytes()
    for number in range(60):
        damaged = bytearray(data if number % 3 else data[: rng.randrange(len(data))])
        for _ in range(rng.randint(1, 4) if number % 3 else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        said = f"{path} "
        try:
            read_torch(path)
        except DataError as error:
            said = str(error)
        assert said.startswith(f"{path} ")


def test_reading_them_needs_no_torch(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"a": torch.arange(5)}, as_zip=True)
    code = f"""
import sys
from pathlib import Path
import data.import_commands
from data.torch_files import read_torch
assert read_torch(Path({str(path)!r}))["a"].sum() == 10
assert not {{"torch", "matplotlib", "pyarrow", "datasets"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
