"""How well methods learn from noisy labels, on the drawn sample, and what they cost.

    python -m benchmarks.methods [--seed 1 --seed 2 --seed 3] [--setting iid] [--method gce] [--results FILE]
    python -m benchmarks.methods --cost

Each row is a method in a setting with a seed: a run of its own through `flwr run`, with the same budget of rounds, on
two simulated clients at a time. Its line in the results' file is written when it ends; what is there is not run again,
and a run that was stopped goes on, with the same command. What is there is printed as the tables of RESULTS.md.

Accuracies are on the sample's clean test, which no run sees otherwise. `ceiling` is FedAvg with cross-entropy on the
true labels of the same images. `--cost` measures the time of visits apart (`benchmarks.method_cost`), because the
seconds of a run depend on what else the machine does.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.method_cost import median_ratio, ratios
from benchmarks.method_data import SIZE, sample_and_truth
from benchmarks.method_rows import LAST, Cost, Row, append, markdown, read, table
from benchmarks.processes import Deployment, deployment, pairs
from benchmarks.report import Stopwatch, machine
from config import Value
from data.user_cache import cache_folder

ROOT = Path(__file__).parents[1]
RUN_SECONDS = 3600
SEEDS = (1, 2, 3)
PACKAGES = ("flwr", "ray", "torch", "numpy")
COMMON: dict[str, Value] = {
    "model": "resnet18", "image-size": 32, "local-epochs": 5, "batch-size": 32, "learning-rate": 0.05,
    "num-server-rounds": 10, "fraction-train": 0.2, "val-split": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Who holds which images, and how their labels are wrong.

    Attributes:
        about: For the table's title.
        clients: Simulated nodes.
        released: Whether clients hold the sample's own noisy labels; the true ones otherwise.
        config: What holds for all rows.
        noise: What makes the labels wrong, and is left out for the ceiling.
    """

    about: str
    clients: int
    released: bool
    config: Mapping[str, Value]
    noise: Mapping[str, Value]


SETTINGS = {
    "iid": Setting(
        "10 clients, 2 a round, IID; the sample's own noise, 39.5 % wrong by Clothing1M's confusion",
        clients=10,
        released=True,
        config={},
        noise={},
    ),
    "mixed": Setting(
        "20 clients, 4 a round, Bernoulli-Dirichlet (p=0.9, alpha=10); 8 with 50 to 80 % symmetric noise, 12 clean",
        clients=20,
        released=False,
        config={"partition": "bernoulli-dirichlet", "partition-args": "p=0.9 alpha=10.0 min-size=32"},
        noise={"label-noise": "symmetric", "label-noise-args": "noisy-share=0.4 min-rate=0.5 max-rate=0.8"},
    ),
}


@dataclass(frozen=True)
class MethodSpec:
    """One row of the table.

    Attributes:
        method: The run's.
        args: Its `method-args`.
        overrides: Other keys that the method needs, such as `strategy`.
        by_setting: Keys of one setting alone, which win.
        clean: Whether it trains on true labels.
    """

    method: str
    args: str = ""
    overrides: Mapping[str, Value] = field(default_factory=dict)
    by_setting: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    clean: bool = False


# With IID labels no client is noisier than another, so there is nothing to detect, and both halves of FedNoRo and
# FedELC are shown as they are at noisy clients. Two rounds of warm-up, a sixth, would be too few for a fresh network to
# know anything; batches of 32 take half of the label rate that batches of 64 do. Forget rates are the share of wrong
# labels: 39.5 % and 0.4 * 65 %.
WARM = "warm-up-rounds=4"
ALL_NOISY = "clients='all-noisy'"
HALF_RATE = "label-rate=500.0"
MATRIX = "MATRIX"  # stands for the path of the matrix of symmetric noise, 26 % on average
METHODS = {
    "ceiling": MethodSpec("ce", clean=True),
    "ce": MethodSpec("ce"),
    "sce": MethodSpec("sce", "alpha=0.1 beta=1.0"),
    # Its gradient is cross-entropy's times p_y^q, so that a fresh network hardly moves at the others' learning rate.
    "gce": MethodSpec("gce", "q=0.7", {"learning-rate": 0.1}),
    # The sample's some 130 images with both labels are too few to count 196 entries of a matrix.
    "forward": MethodSpec(
        "forward", "transition='clothing1m'", by_setting={"mixed": {"method-args": f"transition='{MATRIX}'"}}
    ),
    "elr": MethodSpec("elr", "beta=0.7 strength=3.0"),
    "fedlsr": MethodSpec("fedlsr", "gamma=0.4 entropy=0.3"),
    "co-teaching": MethodSpec(
        "co-teaching", "forget-rate=0.38", by_setting={"mixed": {"method-args": "forget-rate=0.26"}}
    ),
    "fednoro": MethodSpec("fednoro", WARM, by_setting={"iid": {"method-args": f"{WARM} {ALL_NOISY}"}}),
    "fedelc": MethodSpec(
        "fedelc", f"{WARM} {HALF_RATE}", by_setting={"iid": {"method-args": f"{WARM} {HALF_RATE} {ALL_NOISY}"}}
    ),
}


def config_of(setting: str, method: str, seed: int) -> dict[str, Value]:
    """All that is set for a run, but where its data are and where it is written."""
    place, spec = SETTINGS[setting], METHODS[method]
    return {
        **COMMON, **place.config, **({} if spec.clean else place.noise),
        "method": spec.method, "method-args": spec.args, **spec.overrides, **spec.by_setting.get(setting, {}),
        "seed": seed,
    }  # fmt: skip


def mark_of(setting: str, method: str) -> str:
    """8 hex digits over everything that decides a result, but the seed."""
    place, spec = SETTINGS[setting], METHODS[method]
    decisive = [config_of(setting, method, 0), place.clients, place.released and not spec.clean, asdict(SIZE)]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


def missing(
    rows: Sequence[Row], settings: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[tuple[str, str, int]]:
    """Runs that have no row yet, seed by seed, so that a table that is cut short compares like with like."""
    there = {row.key for row in rows}
    wanted = [(setting, method, seed) for seed in seeds for setting in settings for method in methods]
    return [key for key in wanted if (*key, mark_of(*key[:2])) not in there]


def run_row(started: Deployment, runs: Path, setting: str, method: str, seed: int) -> Row:
    """Do one run, or go on with it; its folder keeps what is small."""
    mark = mark_of(setting, method)
    name = f"{setting}-{method}-{seed}-{mark}"
    config = {
        **config_of(setting, method, seed), "data-dir": str(_data(setting, method)),
        "output-dir": str(runs), "run-name": name, "resume": "auto",
    }  # fmt: skip
    config["method-args"] = str(config["method-args"]).replace(MATRIX, str(_matrix(runs)))
    federation = f"num-supernodes={SETTINGS[setting].clients} client-resources-num-cpus=1 init-args-num-cpus=1"
    with Stopwatch() as watch:
        started.run(ROOT, "--federation-config", federation, "-c", pairs(config), timeout=RUN_SECONDS)
    lines = (runs / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    accuracy = [round(100 * json.loads(line)["test-accuracy"], 3) for line in lines]
    return Row(setting, method, seed, mark, accuracy, round(watch.seconds, 1))


def run_missing(results: Path, wanted: Sequence[tuple[str, str, int]]) -> list[str]:
    """Do the runs, one on each CPU at a time; returns what failed, each with its log.

    Two runs of one actor finish sooner than one of two: while one starts, the other trains. Each server evaluates on
    one thread, or the threads of both would wait for each other.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    failed: list[str] = []
    if not wanted:
        return failed
    runs = results.parent / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _matrix(runs)
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
            config["method-args"] = args.replace(MATRIX, str(_matrix(results.parent)))
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
    seed: Annotated[list[int] | None, typer.Option(help="May be given again; 1, 2 and 3 without.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A row's name; may be given again. All without.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="May be given again. All without.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON lines, in the user's cache folder without.")] = None,
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


def _matrix(folder: Path) -> Path:
    """The transition matrix of the setting with symmetric noise, averaged over its clients."""
    wrong, classes = 0.4 * 0.65, 14
    matrix = np.full((classes, classes), wrong / (classes - 1))
    np.fill_diagonal(matrix, 1 - wrong)
    path = folder / "symmetric-26.txt"
    if not path.exists():
        np.savetxt(path, matrix)
    return path


def _data(setting: str, method: str) -> Path:
    released, truth = sample_and_truth(cache_folder("benchmarks"))
    return released if SETTINGS[setting].released and not METHODS[method].clean else truth


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
