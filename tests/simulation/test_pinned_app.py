"""The code that travels with the ClientApp to machines that do not have it."""

import io
import os
import pickle
import socket
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from client_app.app import app
from messages.fingerprint import code_fingerprint
from simulation.pinned_app import packed_code
from tests.fakes import instruction

NOWHERE = "/no/such/bundle"
UNPICKLE = """
import pickle, sys
app = pickle.load(sys.stdin.buffer)
import client_app.app
from messages import fingerprint
print(client_app.app.__file__, fingerprint.code_fingerprint(), app is client_app.app.app)
"""


def test_a_machine_without_the_bundle_unpacks_it_once(tmp_path: Path) -> None:
    from ray import cloudpickle

    class Elsewhere:
        """The app as another machine sees it."""

        def __reduce__(self) -> tuple[Any, ...]:
            load, (_, *code) = app.__reduce__()
            return load, (NOWHERE, *code)

    pickled = cloudpickle.dumps(Elsewhere())
    folder = tmp_path / "clothing1m-fl" / "code" / code_fingerprint()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    changes = []
    for _ in range(2):
        output = subprocess.run(
            [sys.executable, "-c", UNPICKLE], input=pickled, cwd=tmp_path, env=environment, capture_output=True,
            check=True, timeout=300,
        ).stdout.decode()  # fmt: skip
        assert output.split() == [str(folder / "client_app" / "app.py"), code_fingerprint(), "True"]
        changes.append((folder / "task.py").stat().st_ctime_ns)
    assert changes[0] == changes[1]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_on_this_machine_the_bundle_itself_is_used() -> None:
    load, arguments = app.__reduce__()
    assert load(*arguments) is app
    assert len(pickle.dumps(arguments)) < 1_000_000


class Head:
    """A stand-in for Ray that only stores values."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.puts = 0

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(get_job_id=lambda: f"a job of {id(self)}")

    def _internal_kv_put(self, key: str, value: bytes, namespace: str) -> None:
        self.puts += 1
        self.kept[namespace, key] = value

    def _internal_kv_get(self, key: str, namespace: str) -> bytes | None:
        return self.kept.get((namespace, key))


def test_within_ray_the_head_keeps_the_code_and_messages_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray: Any = Head()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.experimental.internal_kv", ray)
    pickled = [pickle.dumps(app.__reduce__()[1]) for _ in range(3)]
    assert list(ray.kept.values()) == [packed_code()[1]]
    assert ray.puts == 1
    assert max(map(len, pickled)) < 1_000
    load, (bundle, *code) = app.__reduce__()
    assert load(bundle, *code) is app

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    load(NOWHERE, *code)
    unpacked = tmp_path / "clothing1m-fl" / "code" / code_fingerprint()
    assert code_fingerprint(unpacked) == code_fingerprint()

    ray.kept.clear()
    unable = load(NOWHERE, "client_app.app", "0" * 16, None)
    reply = unable(message=instruction(), context=Context(1, 1, {}, RecordDict(), {}))
    assert "cannot be loaded on" in reply.error.reason
    assert "(Ray's head does not have its code)" in reply.error.reason


def test_a_machine_that_lacks_a_package_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("client_app/__init__.py", "")
        files.writestr("client_app/app.py", "import no_such_package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("client_app", "client_app.app"):
        monkeypatch.delitem(sys.modules, name)
    load, _ = app.__reduce__()
    unable = load(NOWHERE, "client_app.app", "0" * 16, archive.getvalue())
    reply = unable(message=instruction(), context=Context(1, 1, {}, RecordDict(), {}))
    assert reply.error.reason.startswith(
        f"the app cannot be loaded on {socket.gethostname()} (No module named 'no_such"
    )
