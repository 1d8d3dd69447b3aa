"""`python -m runs compare`: in which settings runs differ, what they reached, and whether one may compare that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.run_config import Value
from data.text import label, one_line
from runs.errors import RunsError
from runs.listing import all_on_clean_test, rounds
from runs.printing import UNKNOWN, in_percent, print_json, print_table, say
from runs.protocol import differences
from runs.run import Run, comparable_config
from runs.scores import how_picked
from runs.showing import shares

SHOWN = {
    "last": "last round",
    "last10": "last rounds, mean",
    "picked": "picked on validation",
    "best-on-test": "best (picked on test)",
}


def compare(runs: Sequence[Run], plot: Path | None, as_json: bool) -> None:
    """Print it, and draw the accuracies into `plot`.

    Raises:
        RunsError: There are fewer than two runs, or the picture cannot be drawn.
    """
    if len({run.folder.resolve() for run in runs}) < 2:
        raise RunsError("RUN must be named at least twice: comparing takes two runs.")
    names, settings, warnings = names_of(runs), differing(runs), warnings_of(runs)
    if as_json:
        print_json({"runs": [_as_json(run) for run in runs], "settings": settings, "warnings": warnings})
    else:
        _print(runs, names, settings, warnings)
    if plot:
        _draw(runs, names, plot)
        if not as_json:
            say(str(plot.resolve()))


def differing(runs: Sequence[Run]) -> dict[str, list[Value | None]]:
    """By key whose values differ, the value of each run; None of a run whose config cannot be read."""
    configs = [comparable_config(run) for run in runs]
    keys = {key: None for config in configs for key in config}
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each: that of its folder, or the whole path if two are called the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def warnings_of(runs: Sequence[Run]) -> list[str]:
    """Why the runs cannot be compared with the first one, a sentence each."""
    return list(dict.fromkeys(sentence for run in runs[1:] for sentence in differences(runs[0], run)))


def _as_json(run: Run) -> dict[str, Any]:
    about = {"name": run.name, "folder": str(run.folder), "status": run.status, "rounds": run.done}
    return {**about, "accuracy-on": run.measure.name, "scores": shares(run)}


def _print(
    runs: Sequence[Run], names: Sequence[str], settings: dict[str, list[Value | None]], warnings: Sequence[str]
) -> None:
    if settings:
        print_table(["key", *names], [[key, *map(_text, values)] for key, values in settings.items()])
    else:
        say("They have the same settings.")
    say("")
    usual = all_on_clean_test(runs)
    rows = []
    for name, run in zip(names, runs, strict=True):
        on = [] if usual else [run.measure.name]
        rows.append([name, *on, rounds(run), *(in_percent(shares(run)[key]) for key in SHOWN)])
    numbers = ["rounds", *({**SHOWN, "picked": how_picked(runs)}.values())]
    print_table(["accuracy", *([] if usual else ["on"]), *numbers], rows, right=numbers)
    if warnings:
        say("\n".join(["", "They cannot be compared as they are:", *(f"- {one}" for one in warnings)]))


def _text(value: Value | None) -> str:
    return UNKNOWN if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _draw(runs: Sequence[Run], names: Sequence[str], path: Path) -> None:
    try:
        from data import plots  # matplotlib takes a second to import
        from runs.curves import draw_curves

        curves = [{number: 100 * value for number, value in run.accuracies.items()} for run in runs]
        on = [run.measure.name for run in runs]
        plots.save(draw_curves(curves, [label(name) for name in names], on), path)
    except OSError as error:
        raise RunsError(f"--plot is {path}, which cannot be written: {error.strerror}.") from None
    except Exception as error:  # whatever a library that draws makes of a name, or lacks
        why = one_line(f"{type(error).__name__}: {error}")
        raise RunsError(f"--plot is {path}, which cannot be drawn ({why}).") from None
