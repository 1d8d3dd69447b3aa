"""`python -m runs caches`: what the app keeps outside of runs' folders, how much it takes, and getting rid of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.rules import closest
from data.text import shown
from data.user_cache import below_home, cache_folder
from runs.errors import RunsError
from runs.places import bytes_on_disk, default_folder
from runs.printing import counted, in_bytes, print_json, print_table, say
from runs.removing import confirmed, delete, leftovers
from runs.run import find_runs

STATE = "~/clothing1m-fl-state"  # `client_app.client_state`, which imports PyTorch
DECODED = "decoded"


@dataclass(frozen=True)
class About:
    """What is known of a cache: what it holds, and what its loss costs."""

    what: str
    cost: str


KNOWN = {
    DECODED: About("decoded images, and features of them", "they are made again; files that a run has open stay"),
    "index": About(
        "lists of releases, sorted, and what was measured on their images", "they are read again; a minute to measure"
    ),
    "sample": About("the drawn sample", "it is drawn again; a run that reads it fails"),
    "benchmarks": About("what benchmarks drew and measured", "their releases are drawn, and their runs done again"),
    "peers": About("environments of other frameworks", "benchmarks.peers installs them again"),
    "state": About("what clients here remember of images", "clients of runs that are to be resumed start afresh"),
}
UNKNOWN = About("not known", "unknown: it is not of this version")


@dataclass(frozen=True)
class Cache:
    """One of them.

    Attributes:
        name: As `--clear` knows it.
        paths: Its files and folders.
    """

    name: str
    paths: tuple[Path, ...]

    @property
    def about(self) -> About:
        return KNOWN.get(self.name, UNKNOWN)

    @property
    def size(self) -> int:
        return sum(map(bytes_on_disk, self.paths))


def caches() -> list[Cache]:
    """All that are there, the app's own first, then what else is in its cache folder."""
    places: dict[str, list[Path]] = {name: [] for name in KNOWN}
    folder = cache_folder()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = "sample" if path.name.startswith("sample-") else path.name
        if path not in leftovers(folder) and name != "state":
            places.setdefault(name, []).append(path)
    if (state := below_home(STATE)).is_dir():
        places["state"].append(state)
    return [Cache(name, tuple(paths)) for name, paths in places.items() if paths]


def list_caches(as_json: bool) -> None:
    """Print what each takes."""
    found = caches()
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    if not found:
        say(f"There are no caches in {cache_folder()}.")
        return
    rows = [(one.name, one.about.what, in_bytes(one.size), str(one.paths[-1])) for one in found]
    print_table(("name", "what", "size", "where"), rows, right=("size",))
    say("To clear one: python -m runs caches --clear NAME")


def clear(name: str, yes: bool) -> None:
    """Ask, then delete one; never what is outside of its folder.

    Raises:
        RunsError: There is no such cache, it is a link, or a run that is running needs it.
    """
    found = {one.name: one for one in caches()}
    if name not in found:
        known = f"it must be one of {', '.join(found)}{closest(name, found)}" if found else "there are no caches"
        raise RunsError(f"--clear is {shown(name)}; {known}.")
    cache = found[name]
    for path in cache.paths:
        if path.is_symlink():
            raise RunsError(f"{path} is a link to {path.resolve()}; delete yourself what is there.")
    _check_unused(cache)
    before = cache.size
    say(f"{name}: {cache.about.what}, {in_bytes(before)} in {', '.join(map(str, cache.paths))}")
    say(f"Without it: {cache.about.cost}.")
    if not confirmed("Delete it?", yes):
        return
    if name == DECODED:
        from data.images.shared_files import SharedFiles

        SharedFiles(cache.paths[0], 0).clear()
    else:
        for path in (*leftovers(cache.paths[0].parent), *cache.paths):
            delete(path)
    say(f"Freed {in_bytes(before - cache.size)}." + (f" In use: {in_bytes(cache.size)}." if cache.size > 8192 else ""))


def _check_unused(cache: Cache) -> None:
    """Decoded images know who uses them, and lists of releases are read at once; anything else must be left alone."""
    if cache.name in (DECODED, "index"):
        return
    folder = default_folder()
    running = [run.name for run in find_runs(folder) if run.in_use] if folder.is_dir() else []
    if running:
        raise RunsError(
            f"{cache.name} stays: {counted(len(running), 'run')} in {folder} may need it ({', '.join(running[:3])});"
            " wait until that ends."
        )


def _as_json(cache: Cache) -> dict[str, Any]:
    return {
        "name": cache.name,
        "what": cache.about.what,
        "cost": cache.about.cost,
        "paths": [str(path) for path in cache.paths],
        "bytes": cache.size,
    }
