"""What a run's folder says about its config: `config.toml` as it is now, and `resumes.jsonl` with each resume."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from logging import INFO, WARNING
from pathlib import Path

import tomli_w
from flwr.common import log

from config.run_config import RunConfig
from data.whole_files import replace_file
from messages.fingerprint import code_fingerprint
from server_app.may_differ import decides, differences, show
from server_app.resume import Start, read_config
from server_app.set_aside import copy_aside


def write_config(run_dir: Path, config: RunConfig, flower_run: str) -> None:
    """Write `config.toml`; one that is there and does not belong to this run is set aside.

    Args:
        run_dir: The run's folder.
        config: Resolved, with the number of clients.
        flower_run: Flower's id of the run, or of the one that resumes it.
    """
    path = run_dir / "config.toml"
    if path.exists():
        saved = read_config(run_dir)
        wrong = None if saved is None else [key for key in differences(saved, config) if decides(key, saved)]
        if wrong is None:
            log(
                WARNING, "%s is damaged; it is now %s, and is written anew from the checkpoint.", path, copy_aside(path)
            )
        elif wrong:
            log(WARNING, "%s has another %s than the run; it is now %s.", path, ", ".join(wrong), copy_aside(path))
    replace_file(path, _as_toml(config, flower_run).encode())


def record_resume(start: Start, config: RunConfig, flower_run: str) -> None:
    """Add a line to `resumes.jsonl`: after which round, when, and what differs from the checkpoint's config."""
    changed = differences(start.checkpoint.config, config) if start.checkpoint else {}
    if changed:
        log(INFO, "Resuming with other settings: %s.", show(changed))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"round": start.next_round - 1, "time": now, "flower-run": flower_run, "changed": changed}
    with (start.run_dir / "resumes.jsonl").open("a+b") as file:
        # A line that a kill cut off stays, and this one starts on its own.
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        file.write(b"\n" * (file.read() not in (b"", b"\n")) + json.dumps(entry).encode() + b"\n")


def _as_toml(config: RunConfig, flower_run: str) -> str:
    """The resolved config, below a comment with what else decides a result.

    Without the run's own name, and what it resumed: `flwr run -c` with this file is to start another run like it.
    """
    config = replace(config, run_name="", resume="")
    versions = ", ".join(f"{name} {version(name)}" for name in ("flwr", "torch", "torchvision", "numpy"))
    return f"# Flower's run {flower_run}, code {code_fingerprint()}, {versions}\n{tomli_w.dumps(config.to_flat())}"
