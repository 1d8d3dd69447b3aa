"""One probe of this machine: trials of more and more clients at once, and the line to start a run with."""

import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from config.resolve import resolve
from config.run_config import ConfigError, RunConfig
from data.arguments import parse_pairs
from data.release import open_release, training_split
from data.sample import SampleSize
from data.user_cache import below_home
from learning.network import build
from learning.shared_state import shared_state
from methods import with_own_strategy
from probe.client import network_spec
from probe.concurrent import Trial, gpu_total, try_clients, try_server
from probe.errors import NoRoomError
from probe.recommendation import (
    GROWTH,
    Hardware,
    Needs,
    candidates,
    choose,
    federation,
    reason,
    share_of_each,
    shortage,
)
from server_app.strategy import make_strategy, sampled_clients
from simulation.capacity import GIB, memory_bytes

STEPS = {"cpu": 10, "cuda": 50}
# What processes of a run hold in addition, as measured on whole runs (docs/decisions/simulation.md, "The probe"):
# Ray's own share, and models in messages. One more of each client waits in the server until it is aggregated.
RAY_BYTES = 100 << 20
SERVER_MODELS, CLIENT_MODELS = 9, 5 + 1
BUSY = 0.25  # of the CPUs, used by others

console = Console(width=120, highlight=False)


def read_config(texts: list[str]) -> RunConfig:
    """The run config that ``flwr run -c ... -c ...`` would resolve.

    Raises:
        ConfigError: It would refuse it, too.
    """
    values: dict[str, Any] = {}
    for text in texts:
        if text.endswith(".toml"):
            if len(texts) > 1:
                raise ConfigError(f"-c {text}: a file cannot be combined with other settings.")
            values = _read_file(below_home(text))
            continue
        try:
            pairs = parse_pairs(text)
        except ValueError as error:
            raise ConfigError(
                f"-c {text!r}: it must be key=value pairs with TOML values, such as \"batch-size=32 precision='bf16'\""
                f" ({error})."
            ) from None
        values |= {key.replace("_", "-"): value for key, value in pairs.items()}
    return resolve(values)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"-c {path}: it must be a TOML file of run-config keys ({why}).") from None


def images_of_one_client(config: RunConfig, clients: int) -> int:
    """Of the release that `data-dir` names, or of the sample that a run without it draws."""
    if not config.data_dir:
        return SampleSize().train // clients
    release = open_release(Path(config.data_dir).expanduser())
    return len(training_split(release, config.train_split).labels) // clients


def look_at_hardware() -> Hardware:
    cpus = len(os.sched_getaffinity(0))
    return Hardware(cpus, memory_bytes("MemAvailable") or 0, torch.cuda.device_count(), gpu_total())


def probe(texts: list[str], clients: int, steps: int | None) -> None:
    """Train a few steps of 1, 2, 4, ... clients at once, and print how many to run and how to start the run.

    Args:
        texts: What follows each ``-c``.
        clients: In the federation.
        steps: Of each client; None for as many as fit the device.

    Raises:
        ConfigError: The config is not one that could run.
        NoRoomError: Not even one client fits.
    """
    config = read_config(texts)
    hardware, config = look_at_hardware(), with_own_strategy(config)
    steps = steps or STEPS["cuda" if hardware.gpus else "cpu"]
    images, sampled = images_of_one_client(config, clients), sampled_clients(make_strategy(config), clients)
    what = f"{config.model}, {config.image_size} pixels, batches of {config.batch_size}, {config.precision}"
    console.print(f"{hardware}. Training {steps} steps: {what}.")
    if (load := os.getloadavg()[0]) > BUSY * hardware.cpus:
        console.print(f"Other processes keep {load:.1f} CPUs busy: results may differ without them.")
    needs = _needs(config, hardware)
    trials = try_all(config, hardware, needs, steps, images, sampled)
    best = choose(trials, hardware, needs)
    console.print(_table(trials, hardware))
    console.print(
        f"A run takes {_gib(needs.client)} more of memory for each client at once, and {_gib(needs.server)} for the"
        f" server{_on_gpu(needs.server_gpu)}."
    )
    console.print(reason(best, trials, hardware, needs, sampled))
    config_words = "".join(f" -c {_quoted(text)}" for text in texts)
    print(f'flwr run . --stream --federation-config "{federation(clients, best.share)}"{config_words}')


def _needs(config: RunConfig, hardware: Hardware) -> Needs:
    model_bytes = sum(value.nbytes for value in shared_state(build(network_spec(config))).values())
    server = try_server(config, share_of_each(1, hardware, Needs(0, 0)))
    return Needs(
        RAY_BYTES + server.peak + SERVER_MODELS * model_bytes, RAY_BYTES + CLIENT_MODELS * model_bytes, server.gpu
    )


def try_all(config: RunConfig, hardware: Hardware, needs: Needs, steps: int, images: int, sampled: int) -> list[Trial]:
    """Trials of 1, 2, 4, ... clients, until no more fit, or a GPU gains nothing."""
    trials: list[Trial] = []
    for at_once in candidates(hardware, sampled):
        try:
            trials.append(try_clients(config, at_once, share_of_each(at_once, hardware, needs), steps, images))
        except NoRoomError as error:
            if not trials:
                raise
            console.print(f"{at_once} at once do not fit: {error}")
            break
        if shortage(trials[-1], hardware, needs):
            break
        gained = len(trials) == 1 or trials[-1].images_per_second > GROWTH * trials[-2].images_per_second
        if hardware.gpus and not gained:
            break
    return trials


def _table(trials: list[Trial], hardware: Hardware) -> Table:
    title = "clients at once" + (" on one GPU" if hardware.gpus else "")
    table = Table(title, "CPUs each", "images/s together", "a client's peak memory", "of it before training")
    if hardware.gpus:
        table.add_column("GPU memory together")
    for trial in trials:
        row = [f"{trial.at_once}", f"{trial.share.cpus:g}", f"{trial.images_per_second:,.1f}"]
        row += [_gib(trial.peak), _gib(trial.idle)] + ([_gib(trial.gpu)] if hardware.gpus else [])
        table.add_row(*row)
    return table


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def _on_gpu(count: int) -> str:
    return f", {_gib(count)} of the GPU" if count else ""


def _quoted(text: str) -> str:
    return shlex.quote(text) if '"' in text or "$" in text or "`" in text else f'"{text}"'
