"""Pickles that call what they should not."""

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np


class Calls:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.made = function, args

    def __reduce__(self) -> Any:
        return self.made


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that, read with Python's own reader, would make a file or could lead to that."""
    command = f"touch {mark}"
    python = f"open({str(mark)!r}, 'w').close()"
    text = b"X" + len(command).to_bytes(4, "little") + command.encode()
    return {
        **{f"os.system {number}": pickle.dumps({"data": Calls(os.system, command)}, number) for number in range(6)},
        "eval": pickle.dumps(Calls(eval, python), 2),
        "exec": pickle.dumps(Calls(exec, python), 4),
        "subprocess": pickle.dumps(Calls(subprocess.Popen, ["touch", str(mark)]), 2),
        "getattr": pickle.dumps(Calls(getattr, "", "join"), 2),
        "import": pickle.dumps(Calls(__import__, "os"), 2),
        "numpy.load": pickle.dumps(Calls(np.load, str(mark)), 2),
        "numpy.save": pickle.dumps(Calls(np.save, str(mark), [1]), 2),
        "numpy's own os": b"\x80\x04\x8c\x05numpy\x8c\x14core.multiarray.os.x\x93" + text + b"\x85R.",
        "a function below an admitted one": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
        "torch.load": b"ctorch\nload\n" + text + b"\x85R.",
        "copyreg": b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        "a type as a function": b"cnumpy\nndarray\n" + text + b"\x85R.",
        "a text as a function": text + b"(tR.",
        "BUILD of a name": b"cnumpy\nndarray\n}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb" + text + b"b.",
        "BUILD of an admitted name": b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        "BUILD of a dict": b"}}X\x01\x00\x00\x00aK\x01sb.",
        "INST": b"(" + text + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text + b"o.",
        "NEWOBJ": b"ccollections\nOrderedDict\n)\x81.",
        "NEWOBJ_EX": b"ccollections\nOrderedDict\n)}\x92.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID": b"P" + command.encode() + b"\n.",
        "BINPERSID": text + b"Q.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "a set": b"\x80\x04\x8f.",
    }  # fmt: skip
