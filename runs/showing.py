"""`python -m runs show`: everything that one run's folder says."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.check import with_strategy
from config.measure import CLEAN_TEST
from config.run_config import ConfigError, RunConfig, Value
from config.stems import usual_stem
from data.text import label, one_line
from data.whole_files import round_files
from runs.listing import Listed, about
from runs.places import bytes_on_disk
from runs.printing import LONGEST_NAME, UNENDING, counted, in_bytes, in_minutes, print_facts, print_json, say
from runs.protocol import clients
from runs.run import Run, time_of
from runs.scores import last_rounds, picked_by, picked_round, scores
from server_app.files import BEST, CHECKPOINTS
from server_app.picking import LABEL_WAVE
from server_app.round_lines import FAILURES, read_lines
from server_app.stopping import resume_command

SHOWN = ("last", "last10", "picked", "best-on-test")
PICKED_ON_TEST = "picked on clean test itself, so no estimate of anything"


def show(run: Run, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json(everything(run))
        return
    known = everything(run)
    print_facts(_facts(run, known))
    for what in ("resume", "repeat"):
        if command := known[f"{what}-command"]:  # not in the table, which would break the line
            say(f"To {what} it:\n  {command}")


def everything(run: Run) -> dict[str, Any]:
    """What is known of a run, for scripts; docs/runs.md says what each key means."""
    record = run.record
    return {
        **about(Listed(run, bytes_on_disk(run.folder))),
        "scores": {**shares(run), "picked-round": picked_round(run)},
        "settings": settings(run),
        "clients": clients(run) or None,
        "data": record.data if record else {},
        "held": record.held if record else "",
        "code": run.code.split("+") if run.code else [],
        "versions": record.versions if record else {},
        "machine": record.machine if record else {},
        "flower-run": record.flower_run if record else _flower_run(run),
        "failures": failures(run),
        "resumes": resumes(run),
        "files": _files(run.folder),
        "resume-command": _resume_command(run),
        "repeat-command": _repeat_command(run),
    }


def shares(run: Run) -> dict[str, float | None]:
    """Accuracies, 0 to 1 as in metrics.jsonl, on what `Run.measure` says; None if unknown."""
    found = scores(run)
    return {key: round(found[key] / 100, 12) if key in found else None for key in SHOWN}


def settings(run: Run) -> dict[str, Value]:
    """Keys whose values are not the defaults, without the number of clients, which a run finds out."""
    defaults = {**with_strategy(RunConfig()).to_flat(), "stem": usual_stem(run.config) if run.config else ""}
    return {key: value for key, value in run.config.items() if value != defaults[key] and key != "num-clients"}


def failures(run: Run) -> dict[str, int]:
    """How many replies of each client were left out, by its number."""
    try:
        lines = read_lines(run.folder / "failures.jsonl", 10**9, FAILURES).entries
    except ConfigError:
        return {}
    return {str(client): count for client, count in sorted(Counter(line["partition"] for line in lines).items())}


def resumes(run: Run) -> list[dict[str, Any]]:
    """Of each resume: after which round, when, and what changed; damaged lines are left out."""
    found = []
    try:
        path = run.folder / "resumes.jsonl"
        text = path.read_bytes() if path.is_file() else b""
    except OSError:
        return []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and type(entry.get("round")) is int and isinstance(entry.get("time"), str):
            changed = entry.get("changed")
            found.append(
                {
                    "round": entry["round"],
                    "time": entry["time"],
                    "changed": changed if isinstance(changed, dict) else {},
                }
            )
    return found


def _flower_run(run: Run) -> str:
    named = run.rounds[-1].get("flower-run") if run.rounds else None
    return named if isinstance(named, str) else ""


def _files(folder: Path) -> list[dict[str, Any]]:
    """What is in a run's folder, with what it takes on disk; a folder counts with all that is in it."""
    try:
        return [{"name": path.name, "bytes": bytes_on_disk(path)} for path in sorted(folder.iterdir())]
    except OSError:
        return []


def _resume_command(run: Run) -> str:
    """Empty if the run is complete, still runs, or has no checkpoint."""
    folder = run.folder / CHECKPOINTS
    if run.status in ("finished", "running") or not (round_files(folder) or (folder / BEST).exists()):
        return ""
    return resume_command(run.folder).replace(" -c ", f"{_federation(run)} -c ", 1)


def _repeat_command(run: Run) -> str:
    """Empty without a config."""
    if not run.config:
        return ""
    return f"flwr run . --stream{_federation(run)} -c {shlex.quote(str(run.folder / 'config.toml'))}"


def _federation(run: Run) -> str:
    """Flower's own settings, which no file of the run has; empty if the number of clients is unknown."""
    count = clients(run)
    return f' --federation-config "num-supernodes={count} client-resources-num-cpus=1"' if count else ""


def _facts(run: Run, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for people, a name and a text each; what is empty is left out."""
    yield "run", label(run.name, LONGEST_NAME)
    yield "folder", label(str(run.folder), UNENDING)
    yield "status", run.status + (f": {one_line(run.reason, 500)}" if run.reason else "")
    yield "time", _times(run)
    yield "rounds", f"{run.done:,} of {run.asked or '?'}"
    yield "accuracy", "\n".join(_accuracies(run, known["scores"]))
    facts = {
        "settings": "\n".join(f"{key} = {_toml(value)}" for key, value in known["settings"].items()),
        "clients": str(known["clients"] or ""),
        "data": _pairs(known["data"]),
        "labels held": label(known["held"]),
        "code": " then ".join(map(label, known["code"])),
        "versions": _pairs(known["versions"]),
        "machine": _pairs(known["machine"]),
        "failures": ", ".join(f"client {client}: {count}" for client, count in known["failures"].items()),
        "resumed": "\n".join(map(_resume, known["resumes"])),
        "files": "\n".join(
            f"{in_bytes(one['bytes']):>9}  {label(one['name'], LONGEST_NAME)}" for one in known["files"]
        ),
        "on disk": in_bytes(known["bytes"]),
        "damaged": "\n".join(run.problems),
    }
    yield from ((name, text) for name, text in facts.items() if text)


def _accuracies(run: Run, known: dict[str, float | None]) -> Iterator[str]:
    """In words: which number can be compared, and which cannot; and what they are on, if that is not clean test."""
    if not run.measure:
        yield _without_any(run, picked_round(run))
        return
    if run.measure != CLEAN_TEST:
        yield f"on {run.measure.name}, as the run has no test set"
    window = min(last_rounds(run), run.done)
    names = {
        "last": f"round {max(run.accuracies, default=0)}, the last one evaluated",
        "last10": f"mean of the last {counted(window, 'round')}",
        "picked": f"round {known['picked-round']}, which {picked_by(run)} picks",
        "best-on-test": f"the best round, {PICKED_ON_TEST}",
    }
    values = {key: known[key] for key in names}
    if all(value is None for value in values.values()):
        yield "no round has been evaluated"
    for key, value in values.items():
        if value is not None and not (key == "last10" and window == 1):
            yield f"{100 * value:5.1f} %  {names[key]}"
    itself = run.accuracies.get(picked_round(run) or 0)
    if itself is not None and known["picked"] is None:
        yield f"{100 * itself:5.1f} %  round {known['picked-round']}, its best: picked on the same images"


def _without_any(run: Run, picked: int | None) -> str:
    """Of a run without accuracies; label-wave picks a round without any."""
    if picked_by(run) != LABEL_WAVE:
        return "none: the run had no test set, no validation and no evaluation by clients"
    what = f"picks round {picked}" if picked else "has picked no round yet"
    return f"none: the run had neither a test set nor evaluation by clients\n{LABEL_WAVE} {what}"


def _times(run: Run) -> str:
    """When it started and ended, as far as that is known."""
    times = [f"started {in_minutes(run.started)}"] if run.started else []
    times.append(f"ended {in_minutes(run.ended)}" if run.ended else f"last written {in_minutes(run.changed)}")
    return ", ".join(times)


def _resume(entry: dict[str, Any]) -> str:
    changed = ", ".join(map(label, entry["changed"]))
    when = f"after round {entry['round']}, {in_minutes(time_of(entry['time']))}"
    return f"{when}; changed: {changed}" if changed else when


def _pairs(values: dict[str, str]) -> str:
    return "\n".join(f"{label(name)}: {label(value, LONGEST_NAME)}" for name, value in values.items() if value)


def _toml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
