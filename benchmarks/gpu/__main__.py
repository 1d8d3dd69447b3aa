"""Everything that only a GPU can show, in a few minutes; on a machine without one, what it can do of it at toy size.

    python -m benchmarks.gpu [--minutes 9] [--out FOLDER] [--step equality --step speed]

Each step is a separate process with a time limit; if it fails, the next one still starts. Findings are appended to
`findings.jsonl` at once, other output of a step goes to `<step>.log`; at the end all findings are shown in one table.
The exit status is 1 if a requirement does not hold or a step did not finish.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.tools.command import run_command
from benchmarks.tools.report import machine
from data.options import folder_to_write

ROOT = Path(__file__).parents[2]
# Most valuable first, because the last ones are dropped when time runs out: command, and the seconds it may take.
STEPS: dict[str, tuple[list[str], float]] = {
    "equality": (["benchmarks.gpu.equality"], 100),
    "tests": (
        [
            "pytest",
            "-m",
            "gpu",
            "-q",
            "tests/learning/test_golden_losses.py",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:benchmark",
        ],
        60,
    ),
    "parts": (["benchmarks.gpu.parts"], 100),
    "speed": (["benchmarks.gpu.speed"], 90),
    "clients": (["benchmarks.gpu.clients"], 120),
    "whole_run": (["benchmarks.gpu.whole_run"], 240),
    "memory": (["benchmarks.gpu.memory"], 90),
    "probe": (["probe", "--clients", "100", "-c", "preset='notebook'"], 120),
    "recipe": (["benchmarks.client.recipe", "--images", "640", "--repeats", "1"], 100),
    "data_path": (["benchmarks.gpu.data_path"], 60),
    "waits": (["benchmarks.gpu.waits"], 60),
    "compiled": (["benchmarks.gpu.compiled"], 150),
}
# What a CPU runs of these instead.
TOY: dict[str, list[str]] = {
    "probe": ["probe", "--clients", "4", "--steps", "1", "-c", "model='cnn' image-size=32 batch-size=4"],
    "recipe": ["benchmarks.client.recipe", "--images", "4", "--epochs", "1", "--image-size", "32", "--batch-size", "2",
               "--repeats", "1"],
}  # fmt: skip
NEEDS_GPU = {"memory", "waits", "compiled"}
TOYS_AT_ONCE = 2  # they measure nothing
PACKAGES = ("flwr", "ray", "torch", "torchvision", "numpy")
Finding = dict[str, Any]


RUNNING: list[subprocess.Popen[str]] = []  # steps, which Ctrl-C does not reach: they have sessions of their own


def kill(process: "subprocess.Popen[str]") -> None:
    """End a step and all that it started; one that is left could keep the pipe open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_step(name: str, arguments: Sequence[str], limit: float, out: Path, gpu: bool = False) -> list[Finding]:
    """The findings of one step, written to `out` at once; its other output goes to its log."""
    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append({"step": name, **finding})
        with (out / "findings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(findings[-1]) + "\n")

    start = time.perf_counter()
    with (
        (out / f"{name}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ if gpu else os.environ | {"OMP_NUM_THREADS": "1"},  # toys do not pay for more
            start_new_session=True,
        ) as process,
    ):
        timer = threading.Timer(limit, kill, (process,))
        timer.start()
        RUNNING.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"what"'):
                note(json.loads(line))
            else:
                log.write(line)
                log.flush()
        code = process.wait()
        timer.cancel()
        RUNNING.remove(process)
    spent = time.perf_counter() - start
    note({"what": f"{name}: exit status", "value": code, "unit": f"after {spent:.0f} s", "ok": code == 0, "aim": "0"})
    return findings


def table(findings: Sequence[Finding], title: str) -> Table:
    result = Table("step", "", "value", "as it must be", title=title)
    for finding in findings:
        value = finding["value"]
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
        verdict = {True: "yes", False: "NO", None: ""}[finding["ok"]]
        aim = f" ({finding['aim']})" if finding["aim"] else ""
        result.add_row(finding["step"], finding["what"], f"{shown} {finding['unit']}".strip(), verdict + aim)
    return result


def main(
    minutes: Annotated[float, typer.Option(help="Time limit of all steps together.")] = 9.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for findings and logs; a new one by default.", callback=folder_to_write),
    ] = None,
    step: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(STEPS)}; all by default.")] = None,
) -> None:
    if unknown := set(step or []) - set(STEPS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; it must be among {', '.join(STEPS)}.")
    import torch  # takes seconds, which `--help` does without

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    out = out or Path(tempfile.mkdtemp(prefix="benchmarks-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes

    def take(name: str) -> list[Finding]:
        arguments, limit = STEPS[name]
        if not gpu:  # limits are for a machine that does nothing else
            arguments, limit = TOY.get(name, arguments), 4 * limit
        left = deadline - time.monotonic()
        if left < 1:
            print(f"{name}: no time left", file=sys.stderr)
            return []
        found = run_step(name, arguments, min(limit, left), out, bool(gpu))
        print(f"{name}: done, {deadline - time.monotonic():.0f} s left", file=sys.stderr, flush=True)
        return found

    with ThreadPoolExecutor(1 if gpu else TOYS_AT_ONCE) as pool:
        names = [name for name in step or STEPS if gpu or name not in NEEDS_GPU]
        # Toys that take longest begin first, so that both end together.
        names.sort(key=lambda name: not gpu and name not in ("recipe", "whole_run"))
        try:
            findings = [finding for found in pool.map(take, names) for finding in found]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                kill(process)
            raise
    where = {"device": gpu or "no GPU", **machine(PACKAGES)}
    Console(width=160).print(table(findings, ", ".join(f"{key} {value}" for key, value in where.items())))
    (out / "machine.json").write_text(json.dumps(where, indent=1) + "\n", encoding="utf-8")
    print(f"Findings and logs are in {out}.")
    if any(finding["ok"] is False for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main, __doc__)
