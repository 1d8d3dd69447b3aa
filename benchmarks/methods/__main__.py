"""How well methods learn from noisy labels, on the synthetic sample, and what they cost.

    python -m benchmarks.methods [--seed 1 --seed 2 --seed 3] [--setting iid] [--method gce] [--results FILE]
    python -m benchmarks.methods --cost

Each row is a method in a setting with a seed: a run of its own through `flwr run`, with the same budget of rounds, on
two simulated clients at a time. Its line is added to the results file when it ends. The same command runs only what is
missing, resumes a run that was stopped, and prints all results as the tables of RESULTS.md.

Accuracies are on the sample's clean test, which no run uses for anything else. `ceiling` is FedAvg with cross-entropy
on the true labels of the same images. `--cost` measures the time of visits separately (`benchmarks.methods.cost`),
because the seconds of a run depend on what else the machine does.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.methods.cost import median_ratio, ratios
from benchmarks.methods.data import SIZE, sample_and_truth
from benchmarks.methods.rows import LAST, Cost, Row, append, markdown, read, table
from benchmarks.methods.settings import COMMON, MATRIX, METHODS, SETTINGS, WARM, config_of, mark_of, write_matrix
from benchmarks.tools.command import run_command
from benchmarks.tools.processes import Deployment, deployment, pairs
from benchmarks.tools.report import Stopwatch, machine
from data.options import file_to_write
from data.user_cache import cache_folder

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 3600
SEEDS = (1, 2, 3)
PACKAGES = ("flwr", "ray", "torch", "numpy")


def missing(
    rows: Sequence[Row], settings: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[tuple[str, str, int]]:
    """Runs that have no row yet, seed by seed, so that even an incomplete table compares like with like."""
    there = {row.key for row in rows}
    wanted = [(setting, method, seed) for seed in seeds for setting in settings for method in methods]
    return [key for key in wanted if (*key, mark_of(*key[:2])) not in there]


def run_row(started: Deployment, runs: Path, setting: str, method: str, seed: int) -> Row:
    """Do one run, or resume it; only small files stay in its folder."""
    mark = mark_of(setting, method)
    name = f"{setting}-{method}-{seed}-{mark}"
    config = {
        **config_of(setting, method, seed), "data-dir": str(_data(setting, method)),
        "output-dir": str(runs), "run-name": name, "resume": "auto",
    }  # fmt: skip
    config["method-args"] = str(config["method-args"]).replace(MATRIX, str(write_matrix(runs)))
    federation = f"num-supernodes={SETTINGS[setting].clients} client-resources-num-cpus=1 init-args-num-cpus=1"
    with Stopwatch() as watch:
        started.run(ROOT, "--federation-config", federation, "-c", pairs(config), timeout=RUN_SECONDS)
    lines = (runs / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    accuracy = [round(100 * json.loads(line)["test-accuracy"], 3) for line in lines]
    return Row(setting, method, seed, mark, accuracy, round(watch.seconds, 1))


def run_missing(results: Path, wanted: Sequence[tuple[str, str, int]]) -> list[str]:
    """Do the runs, one on each CPU at a time; return the failures, each with its log.

    Two runs of one actor finish sooner than one of two: while one starts, the other trains. Each server evaluates on
    one thread, or the threads of both would wait for each other.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    failed: list[str] = []
    if not wanted:
        return failed
    runs = results.parent / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    write_matrix(runs)
    waiting = list(enumerate(wanted, 1))

    def work(home: Path) -> None:
        with deployment(home, [], {}) as started:
            while waiting:
                number, key = waiting.pop(0)
                what = f"{number} of {len(wanted)}: {key[0]}, {key[1]}, seed {key[2]}"
                try:
                    row = run_row(started, runs, *key)
                except RuntimeError as error:
                    failed.append(f"{what}: {error}")
                    print(failed[-1], file=sys.stderr, flush=True)
                    continue
                append(results, row)
                for large in ("checkpoints", "model.safetensors", "state"):
                    _remove(runs / f"{key[0]}-{key[1]}-{key[2]}-{row.mark}" / large)
                print(f"{what}: {row.result:.1f} % in {row.seconds:.0f} s", file=sys.stderr, flush=True)

    at_once = min(len(os.sched_getaffinity(0)), len(wanted))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, [Path(temporary) / f"home-{number}" for number in range(at_once)]))
    return failed


def measure_costs(results: Path, settings: Sequence[str], methods: Sequence[str]) -> None:
    """Add a line for each method, whether or not there is one; the newest counts."""
    for setting in settings:
        for method in methods:
            config = {**config_of(setting, method, SEEDS[0]), "data-dir": str(_data(setting, method))}
            # From the second round on in stage 2, where these methods differ.
            args = str(config["method-args"]).replace(WARM, "warm-up-rounds=1")
            config["method-args"] = args.replace(MATRIX, str(write_matrix(results.parent)))
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
    shown = ", ".join(f"{key} {value}" for key, value in COMMON.items())
    return (
        f"**{setting}**: {SETTINGS[setting].about}. {SIZE.train:,} images, {SIZE.test:,} for test; {shown}. Seeds"
        f" {', '.join(map(str, seeds))}; accuracies are means of the last {LAST} rounds.\n\n{markdown(lines)}\n"
    )


def main(
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated; 1, 2 and 3 by default.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Name of a row; may be repeated. All by default.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="May be repeated; all by default.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="File of JSON lines; by default in the cache folder.", callback=file_to_write)
    ] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Measure what visits cost, instead of running.")] = False,
) -> None:
    seeds = seed or list(SEEDS)
    methods, settings = _known("--method", method, METHODS), _known("--setting", setting, SETTINGS)
    path = (results or cache_folder("benchmarks", "methods", "rows.jsonl")).expanduser().resolve()
    failed: list[str] = []
    if cost:
        measure_costs(path, settings, methods)
    else:
        failed = run_missing(path, missing(read(path)[0], settings, methods, seeds))
    for one in settings:
        # The base is in every table, so that a method that is asked for alone is compared with it.
        print(section(one, [name for name in METHODS if name in {*methods, "ce"}], seeds, path))
    print(", ".join(f"{key} {value}" for key, value in machine(PACKAGES).items()))
    if failed:
        raise typer.Exit(1)


def _known(option: str, given: Sequence[str] | None, table: Mapping[str, object]) -> list[str]:
    """The names that are given, or all."""
    for name in given or ():
        if name not in table:
            raise typer.BadParameter(f"{option} is {name!r}; it must be one of {', '.join(table)}.")
    return list(given or table)


def _data(setting: str, method: str) -> Path:
    released, truth = sample_and_truth(cache_folder("benchmarks"))
    return released if SETTINGS[setting].released and not METHODS[method].clean else truth


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    run_command(main, __doc__)
