"""Random damage to files and folders, and what a run's folder holds."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from client_app.client_state import FORMAT as STATE_FORMAT
from data.sealed import DamagedError, read_sealed, write_sealed
from server_app.checkpoint_file import FORMAT as CHECKPOINT_FORMAT

LINES = (
    b"", b"nonsense", b'{"round": 2, "test-acc', b"\xff\xfe\x00", b"[1]", b"null", b'"text"', b"{}", b"[" * 5000,
    b'{"round": 1}', b'{"round": "1"}', b'{"round": 0}', b'{"round": true, "test-accuracy": 0.5}',
    b'{"round": 1, "test-accuracy": "high"}', b'{"round": 1, "test-accuracy": NaN}', b'{"round": 1.0}',
    b'{"round": 1, "test-accuracy": 1e999}', b'{"round": 2, "test-accuracy": 0.25}', b'{"round": ' + b"9" * 5000 + b"}",
    b'{"round": 1, "partition": "x", "reason": 3}', b'{"round": 2, "partition": 1, "reason": "\\ud800"}', b"\x00" * 300,
    b"seed = ", b"seed = 'x'", b"[table]", b"round-timeout = -1.0", b"num-server-rounds = 1", b'run-name = "other"',
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3.5,
    10**400,
    "",
    "../..",
    [],
    [[]],
    [["a", 1]],
    [1, 2, 3],
    {},
    {"seed": None},
    {"a": "b"},
)


def kinds(run_dir: Path) -> list[str]:
    """What a run's folder holds, files and folders, below it: of those that differ in digits alone the last one."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        found[re.sub(r"[0-9a-f]{16}|\d+", "N", name)] = name
    return list(found.values())


def damage(path: Path, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Do one thing, drawn at random, to a file or folder."""
    ways = [_delete, _link_to_nowhere, _other_type]
    if path.is_file():
        ways += [_truncate, _overwrite, _insert_line, _empty, _binary, _huge, _double, _append]
        ways += [_deeply] * 3 * (path.suffix == ".safetensors")
    draw(st.sampled_from(ways))(path, draw)


def _delete(path: Path, draw: Any) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _link_to_nowhere(path: Path, draw: Any) -> None:
    _delete(path, draw)
    path.symlink_to("nowhere")


def _other_type(path: Path, draw: Any) -> None:
    was_folder = path.is_dir()
    _delete(path, draw)
    if was_folder:
        path.write_bytes(b"a file")
    else:
        path.mkdir()
        (path / "content").write_bytes(b"a file in a folder")


def _truncate(path: Path, draw: Any) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw(st.integers(0, max(0, len(data) - 1)))])


def _overwrite(path: Path, draw: Any) -> None:
    data = bytearray(path.read_bytes())
    at = draw(st.integers(0, len(data)))
    new = draw(st.binary(min_size=1, max_size=20))
    data[at : at + len(new)] = new
    path.write_bytes(data)


def _insert_line(path: Path, draw: Any) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[draw(st.integers(0, len(lines))) : 0] = draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=3))
    path.write_bytes(b"\n".join(lines))


def _append(path: Path, draw: Any) -> None:
    path.write_bytes(path.read_bytes() + draw(st.sampled_from(LINES)))


def _empty(path: Path, draw: Any) -> None:
    path.write_bytes(b"")


def _binary(path: Path, draw: Any) -> None:
    path.write_bytes(draw(st.binary(max_size=200)))


def _huge(path: Path, draw: Any) -> None:
    path.write_bytes(draw(st.sampled_from([b"\x00", b"{", b"a\n", b"\xff"])) * 2_000_000)


def _double(path: Path, draw: Any) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _deeply(path: Path, draw: Any) -> None:
    """Another fact, under a checksum that fits."""
    for form in (CHECKPOINT_FORMAT, STATE_FORMAT):
        try:
            facts, arrays = read_sealed(path, form)
        except DamagedError:
            continue
        name = draw(st.sampled_from(sorted(facts.keys() - {"order"})))
        write_sealed(path, form, {**facts, name: draw(st.sampled_from(VALUES))}, arrays)


def valid_lines(run_dir: Path) -> set[bytes]:
    """Those of all JSON Lines files."""
    files = [path for path in run_dir.rglob("*.jsonl*") if path.is_file()]
    return {line.strip() for path in files for line in path.read_bytes().split(b"\n") if _is_valid(line)}


def hashes(folder: Path) -> set[str]:
    """Of the content of all files, damaged or not, but for temporary ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_valid(line: bytes) -> bool:
    try:
        entry = json.loads(line.decode())
        return type(entry["round"]) is int and entry["round"] >= 1
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
