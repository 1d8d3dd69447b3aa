"""How well methods learn from noisy labels, on drawn garments and on scanned digits, and what they cost.

    python -m benchmarks.methods [--seed 1 --seed 2 --seed 3] [--setting iid] [--method gce] [--results FILE]
    python -m benchmarks.methods --in-process [--at-once 16] ...
    python -m benchmarks.methods --cost

Each row is a method in a setting with a seed: a run with the same budget of rounds, through `flwr run` with one actor,
or `--in-process`, without Flower's and Ray's processes; accuracies are the same. As many runs as there are CPUs, or
`--at-once`, go on side by side. A row's line is added to the results file when it ends. The same command runs only what
is missing, resumes runs that were stopped, and prints all results as the tables of RESULTS.md.

Accuracies are on a clean test that no run uses for anything else. `ceiling` is FedAvg with cross-entropy on the true
labels of the same images. `--cost` measures the time of visits separately (`benchmarks.methods.cost`), because the
seconds of a run depend on what else the machine does.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.methods.cost import median_ratio, ratios
from benchmarks.methods.rows import LAST, Cost, Row, append, markdown, read, table
from benchmarks.methods.runs import in_processes, placed, through_flower
from benchmarks.methods.settings import METHODS, SETTINGS, WARM, mark_of, rows_of
from benchmarks.tools.command import run_command
from benchmarks.tools.report import machine
from data.options import file_to_write
from data.user_cache import cache_folder

SEEDS = (1, 2, 3)
CPUS = len(os.sched_getaffinity(0))
PACKAGES = ("flwr", "ray", "torch", "numpy")
NOT_SHOWN = ("val-split", "partition", "partition-args")  # in titles: about the same in all, or in words


def missing(
    rows: Sequence[Row], settings: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[tuple[str, str, int]]:
    """Runs that have no row yet, seed by seed, so that even an incomplete table compares like with like."""
    there = {row.key for row in rows}
    wanted = [
        (setting, method, seed)
        for seed in seeds
        for setting in settings
        for method in methods
        if method in rows_of(setting)
    ]
    return [key for key in wanted if (*key, mark_of(*key[:2])) not in there]


def measure_costs(results: Path, settings: Sequence[str], methods: Sequence[str]) -> None:
    """Add a line for each method, whether or not there is one; the newest counts."""
    for setting in settings:
        for method in [name for name in methods if name in rows_of(setting)]:
            config = placed(setting, method, SEEDS[0], results.parent)
            # From the second round on in stage 2, where these methods differ.
            config["method-args"] = str(config["method-args"]).replace(WARM, "warm-up-rounds=1")
            found = ratios(config, SETTINGS[setting].clients)
            append(results, Cost(setting, method, mark_of(setting, method), [round(one, 3) for one in found]))
            spread = f"{min(found):.2f} to {max(found):.2f}"
            print(f"{setting}, {method}: {median_ratio(found):.2f} x ({spread})", file=sys.stderr, flush=True)


def section(setting: str, methods: Sequence[str], seeds: Sequence[int], results: Path) -> str:
    """A setting's part of RESULTS.md."""
    rows, costs = read(results)
    marks = {method: mark_of(setting, method) for method in methods}
    chosen = {row.key: row for row in rows if row.setting == setting and marks.get(row.method) == row.mark}
    newest = {
        one.method: median_ratio(one.ratios)
        for one in costs
        if (one.setting, marks.get(one.method)) == (setting, one.mark)
    }
    lines = table([row for row in chosen.values() if row.seed in seeds], newest, list(methods))
    place = SETTINGS[setting]
    keys = ", ".join(f"{key} {value}" for key, value in place.config.items() if key not in NOT_SHOWN)
    return (
        f"**{setting}**: {place.about}. {place.images}; {keys}. Seeds {', '.join(map(str, seeds))}; accuracies are"
        f" means of the last {LAST} rounds.\n\n{markdown(lines)}\n"
    )


def main(
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated; 1, 2 and 3 by default.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Name of a row; may be repeated. All by default.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="May be repeated; all by default.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="File of JSON lines; by default in the cache folder.", callback=file_to_write)
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Each run in one process of one thread, without Flower's and Ray's.")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, help="Runs side by side.", show_default="one for each CPU")] = CPUS,
    cost: Annotated[bool, typer.Option("--cost", help="Measure what visits cost, instead of running.")] = False,
) -> None:
    seeds = seed or list(SEEDS)
    methods, settings = _known("--method", method, METHODS), _known("--setting", setting, SETTINGS)
    path = (results or cache_folder("benchmarks", "methods", "rows.jsonl")).expanduser().resolve()
    failed: list[str] = []
    if cost:
        measure_costs(path, settings, methods)
    elif wanted := missing(read(path)[0], settings, methods, seeds):
        failed = (in_processes if in_process else through_flower)(path, wanted, at_once)
    for one in settings:
        # The base is in every table, so that a method that is asked for alone is compared with it.
        print(section(one, [name for name in rows_of(one) if name in {*methods, "ce"}], seeds, path))
    print(", ".join(f"{key} {value}" for key, value in machine(PACKAGES).items()))
    if failed:
        raise typer.Exit(1)


def _known(option: str, given: Sequence[str] | None, table: Mapping[str, object]) -> list[str]:
    """The names that are given, or all."""
    for name in given or ():
        if name not in table:
            raise typer.BadParameter(f"{option} is {name!r}; it must be one of {', '.join(table)}.")
    return list(given or table)


if __name__ == "__main__":
    run_command(main, __doc__)
