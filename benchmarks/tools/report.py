"""What every benchmark prints: a table for people, one JSON line for machines, and where it was measured."""

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


class Stopwatch:
    """``with Stopwatch() as watch: ...`` and then ``watch.seconds``."""

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        self.seconds = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Processor, cores that may be used, Python, and the versions of `packages`."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = str(len(os.sched_getaffinity(0)))
    return {"cpu": model, "cores": cores, "python": platform.python_version(), **{p: version(p) for p in packages}}


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], packages: Sequence[str]) -> None:
    """Print a table, where it was measured, and everything as one line of JSON."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console(width=120)
    console.print(table)
    where = machine(packages)
    console.print(", ".join(f"{key} {value}" for key, value in where.items()), highlight=False)
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    print(json.dumps({"benchmark": title, "machine": where, "rows": records}))
