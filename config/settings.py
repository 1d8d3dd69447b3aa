"""Writes what other files say about the keys of a run: the tables of docs/settings.md, the config of pyproject.toml.

    python -m config.settings --write   after a change in config/run_config.py, choices.py or architectures.py
    python -m config.settings --check   exit 1, and name what differs

All of it comes from the fields of `RunConfig`, but the table of networks in docs/models.md, which comes from
`config.architectures`. The rest of these files stays as it is.
"""

import argparse
import dataclasses
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from config.architectures import FAMILIES, Family
from config.run_config import RunConfig, Value
from data.outputs import check_output

ROOT = Path(__file__).parents[1]
WIDTH = 120  # columns of pyproject.toml
GROUPS = {
    "run": "What is recorded, where, and from which random numbers.",
    "data": "Which images and labels, and who holds them. See [data/README.md](../data/README.md).",
    "federation": (
        "Who takes part in a round, what travels, and how the server aggregates."
        " See [docs/strategies.md](strategies.md)."
    ),
    "method": "How clients learn from noisy labels. See [docs/methods.md](methods.md).",
    "model": "The network and what it sees.",
    "training": "One visit to a client.",
    "machine": "Speed, and folders on disk. Only the first three can change a result, and only by rounding.",
}


@dataclass(frozen=True)
class Key:
    """How a key is described; `meaning` and `allowed` are Markdown, `default` is TOML."""

    name: str
    group: str
    default: str
    meaning: str
    allowed: str


def keys_of(config: type[RunConfig] = RunConfig) -> list[Key]:
    """Every key, in the order of the fields.

    Raises:
        ValueError: A group that there is not.
    """
    keys = []
    for name, field in zip(config().to_flat(), dataclasses.fields(config), strict=True):
        group, rule = field.metadata["group"], field.metadata["rule"]
        if group not in GROUPS:
            raise ValueError(f"the group of '{name}' is {group!r}; it must be one of {', '.join(GROUPS)}.")
        keys.append(
            Key(name, group, _toml(cast(Value, field.default)), field.metadata["meaning"], rule.short or rule.allowed)
        )
    return keys


def in_page(text: str, keys: list[Key]) -> str:
    """docs/settings.md with the table of each group between its two comments.

    Raises:
        ValueError: The comments of a group are missing.
    """
    for group, about in GROUPS.items():
        rows = [
            f"| `{key.name}` | `{key.default}` | {key.meaning} | {key.allowed} |" for key in keys if key.group == group
        ]
        table = ["| key | default | meaning | allowed |", "|---|---|---|---|", *rows]
        opening, closing = f"<!-- settings:{group} -->", f"<!-- /settings:{group} -->"
        block = "\n".join([opening, about, "", *table, closing])
        text = _replaced(f"{opening}\n.*?{closing}", block, text, f"lines {opening} and {closing}")
    return text


def in_pyproject(text: str, keys: list[Key]) -> str:
    """pyproject.toml with every key, its default, and a comment that says what it means and what is allowed.

    Raises:
        ValueError: There is no table for them.
    """
    settings = {key: f"{key.name} = {key.default}" for key in keys}
    column = max(map(len, settings.values())) + 1
    blocks = []
    for group, about in GROUPS.items():
        lines = [f"# {group.capitalize()}. {_plain(about)}"]
        for key in (key for key in keys if key.group == group):
            first, *more = _comment(key, WIDTH - column - len("# "))
            lines.append(f"{settings[key]:<{column}}# {first}")
            lines += [" " * column + f"# {line}" for line in more]
        blocks.append("\n".join(lines))
    table = "[tool.flwr.app.config]"
    return _replaced(rf"^{re.escape(table)}\n.*?(?=^\[)", f"{table}\n" + "\n\n".join(blocks) + "\n\n", text, table)


def in_models_page(text: str, keys: list[Key]) -> str:
    """docs/models.md with the table of networks between its two comments.

    Raises:
        ValueError: The comments are missing.
    """
    header = "| networks | `model` | smallest side | BatchNorm | draws | weights | good to know |"
    rows = [header, "|---|---|---|---|---|---|---|", *map(_row, FAMILIES)]
    opening, closing = "<!-- models -->", "<!-- /models -->"
    block = "\n".join([opening, *rows, closing])
    return _replaced(f"{opening}\n.*?{closing}", block, text, f"lines {opening} and {closing}")


def _row(family: Family) -> str:
    side = f"{family.smallest}" + (f", and a multiple of {family.multiple}" if family.multiple > 1 else "")
    batchnorm = "yes" if family.batchnorm else "no"
    if family.alone:
        batchnorm += f"; two images a batch up to {family.alone}"
    cells = [
        family.title, ", ".join(f"`{name}`" for name in family.names), side, batchnorm,
        "yes" if family.draws else "no", _weights(family), family.about,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _weights(family: Family) -> str:
    """The weights of all, or each kind with the names that have it."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, weights in family.names.items():
        kinds.setdefault(weights, []).append(name)
    said = {kind: ", ".join(one.removeprefix("IMAGENET1K_") for one in kind) or "none" for kind in kinds}
    if len(kinds) == 1:
        return said[next(iter(kinds))]
    usual = max(kinds, key=lambda kind: len(kinds[kind]))
    others = [f"{', '.join(kinds[kind])}: {said[kind]}" for kind in kinds if kind != usual]
    return "; ".join([said[usual], *others])


WRITTEN: dict[str, Callable[[str, list[Key]], str]] = {
    "docs/settings.md": in_page,
    "docs/models.md": in_models_page,
    "pyproject.toml": in_pyproject,
}


def differences(root: Path = ROOT, *, write: bool = False) -> list[str]:
    """The lines that are (-) and should be (+) in these files, file by file; none if all is well.

    Args:
        root: The checkout.
        write: Write the files as well.

    Raises:
        ValueError: A file has no place for its part.
    """
    found: list[str] = []
    for name, render in WRITTEN.items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        try:
            wanted = render(text, keys_of())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        found += difflib.unified_diff(text.splitlines(), wanted.splitlines(), name, "as it must be", n=0, lineterm="")
        if write and wanted != text:
            check_output(path, name)
            path.write_text(wanted, encoding="utf-8")
    return found


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m config.settings", description=(__doc__ or "").split("\n\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write docs/settings.md and pyproject.toml")
    action.add_argument("--check", action="store_true", help="exit 1 if one of them differs, and name what does")
    write = parser.parse_args(arguments).write
    try:
        found = differences(root, write=write)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if write or not found:
        return 0
    print(*found, sep="\n")
    print("These lines are not what config/ says; run `python -m config.settings --write`.", file=sys.stderr)
    return 1


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _comment(key: Key, width: int) -> list[str]:
    """What a key means, and what is allowed: in one line if they fit, else each from a line of its own."""
    meaning, allowed = _plain(key.meaning), f"[{_plain(key.allowed)}]"
    if len(meaning) + 1 + len(allowed) <= width:
        return [f"{meaning} {allowed}"]
    return [*_wrapped(meaning, width), *_wrapped(allowed, width)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _plain(markdown: str) -> str:
    """Text without links and code marks, for a comment."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "")


def _replaced(pattern: str, new: str, text: str, what: str) -> str:
    replaced, count = re.subn(pattern, lambda _: new, text, flags=re.DOTALL | re.MULTILINE)
    if count != 1:
        raise ValueError(f"it must have {what} once, and has them {count} times")
    return replaced


if __name__ == "__main__":
    raise SystemExit(main())
