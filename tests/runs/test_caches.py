"""`python -m runs caches`: what is there, and that clearing it touches nothing else and nobody who uses it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client_app.client_state import DEFAULT
from data.images.shared_files import SharedFiles
from data.sample import sample_folder
from data.user_cache import cache_folder
from runs import caches
from server_app.run_lock import RunLock
from tests.runs.folders import Said, write_run


@pytest.fixture
def cache(home: Path) -> Path:
    """The app's cache folder, with something in each."""
    folder = home / ".cache" / "clothing1m-fl"
    assert cache_folder() == folder
    for name in (
        "decoded/x.pixels",
        "index/a",
        "sample-01234567/images/a.jpg",
        "sample-89abcdef/a",
        "peers/a",
        "new/a",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 5000)
    state = home / "clothing1m-fl-state" / "run" / "client-00000"
    state.mkdir(parents=True)
    (state / "round-00001.safetensors").write_bytes(b"x" * 5000)
    return folder


def test_places_are_those_that_the_app_writes(home: Path) -> None:
    assert caches.STATE == DEFAULT
    assert sample_folder().name.startswith("sample-")
    assert cache_folder(caches.DECODED).name in caches.KNOWN


def test_what_there_is(cache: Path, home: Path, runs: Callable[..., Said]) -> None:
    found = {one["name"]: one for one in runs("caches", "--json").json}
    assert list(found) == ["decoded", "index", "sample", "peers", "state", "new"]
    assert found["sample"]["paths"] == [str(cache / "sample-01234567"), str(cache / "sample-89abcdef")]
    assert found["state"]["paths"] == [str(home / "clothing1m-fl-state")]
    assert all(5000 <= one["bytes"] < 50_000 for one in found.values())
    rows = runs("caches").out.splitlines()
    assert rows[0].split() == ["name", "what", "size", "where"]
    assert len(rows) == 8
    assert rows[-1] == "To clear one: python -m runs caches --clear NAME"


def test_none(runs: Callable[..., Said]) -> None:
    assert runs("caches").out.startswith("There are no caches in ")
    assert runs("caches", "--json").json == []
    assert "there are no caches" in runs("caches", "--clear", "decoded").err


@pytest.mark.parametrize("name", ["decoded", "index", "sample", "peers", "state", "new"])
def test_clearing_one_leaves_the_others(
    name: str, cache: Path, home: Path, runs: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def others() -> dict[str, int]:
        return {one["name"]: one["bytes"] for one in runs("caches", "--json").json if one["name"] != name}

    before = others()
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert runs("caches", "--clear", name).out.endswith("Nothing was removed.\n")
    assert len(runs("caches", "--json").json) == 6
    said = runs("caches", "--clear", name, "--yes")
    assert (said.code, said.err) == (0, "")
    assert "Freed " in said.out
    assert f"Without it: {caches.KNOWN.get(name, caches.UNKNOWN).cost}." in said.out
    assert others() == before
    if name != "decoded":
        assert name not in {one["name"] for one in runs("caches", "--json").json}


@pytest.mark.parametrize("name", ["", "x", "..", "decoded/..", "/", "sample-01234567", "Index", "\x1b[31m"])
def test_other_names_are_refused(name: str, cache: Path, runs: Callable[..., Said]) -> None:
    said = runs("caches", "--clear", name, "--yes")
    if name:
        assert (said.code, said.out) == (1, "")
        assert "it must be one of decoded, index, sample, peers, state, new" in said.err
    assert len(runs("caches", "--json").json) == 6


def test_links_are_neither_followed_nor_removed(cache: Path, tmp_path: Path, runs: Callable[..., Said]) -> None:
    outside = tmp_path / "disk"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    (cache / "benchmarks").symlink_to(outside)
    (cache / "index" / "link").symlink_to(outside)
    said = runs("caches", "--clear", "benchmarks", "--yes")
    assert f"is a link to {outside}; delete yourself what is there." in said.err
    assert runs("caches", "--clear", "index", "--yes").code == 0
    assert (outside / "precious").read_bytes() == b"1"
    assert not (cache / "index").exists()


def test_pixels_in_use_stay_and_are_right(cache: Path, runs: Callable[..., Said]) -> None:
    files = SharedFiles(cache / "decoded", 10**6)

    def sevens(pixels: np.ndarray) -> None:
        pixels[:] = 7

    mapped = files.filled("used.pixels", (300, 300), sevens)
    assert mapped is not None
    said = runs("caches", "--clear", "decoded", "--yes")
    assert "In use: " in said.out
    assert {path.suffix for path in (cache / "decoded").iterdir() if path.name != "lock"} == {".pixels"}
    assert (cache / "decoded" / "used.pixels").exists()
    assert (mapped == 7).all()
    del mapped
    assert files.filled("next.pixels", (10, 10), sevens) is not None
    runs("caches", "--clear", "decoded", "--yes")
    assert not (cache / "decoded" / "used.pixels").exists()


def test_what_a_running_run_may_need_stays(cache: Path, home: Path, runs: Callable[..., Said]) -> None:
    folder = write_run(home / "clothing1m-fl-runs" / "busy")
    with RunLock() as lock:
        lock.take(folder)
        for name in ("sample", "state", "peers"):
            said = runs("caches", "--clear", name, "--yes")
            assert said.code == 1
            assert f"{name} stays: 1 run in {folder.parent} may need it (busy); wait until that ends." in said.err
        for name in ("index", "decoded"):
            assert runs("caches", "--clear", name, "--yes").code == 0
    assert runs("caches", "--clear", "sample", "--yes").code == 0


def test_an_interrupted_clearing_is_finished_by_the_next(cache: Path, runs: Callable[..., Said]) -> None:
    (cache / "peers").rename(cache / ".peers.removed-0123abcd")
    assert "peers" not in {one["name"] for one in runs("caches", "--json").json}
    runs("caches", "--clear", "new", "--yes")
    assert not (cache / ".peers.removed-0123abcd").exists()
