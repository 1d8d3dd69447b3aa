"""Which values settings and parameters may have, and how messages describe them."""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config.architectures import ARCHITECTURES, TIMM_NAME

MOST = 1e9  # numbers without a limit of their own stop here: larger ones overflow, in float32 or in a clock
MOST_SEED = 2**63 - 1  # what a message can carry
LONGEST_PATH, LONGEST_NAME = 4096, 255  # bytes, on Linux
LONGEST_RUN_NAME = 200  # bytes: a number may be added


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy.

    Attributes:
        allowed: Completes the sentence "it must be ...".
        holds: Whether a value satisfies it.
        short: What the settings page says instead of `allowed`, in Markdown; empty if that will do.
        source: The expression in Python, with the names of this module, that makes this rule, for `config.known`;
            needed where parameters of methods and strategies have it.
        names: Those that a value may be, to name the closest one to a value that is none of them.
    """

    allowed: str
    holds: Callable[[Any], bool]
    short: str = ""
    source: str = ""
    names: tuple[str, ...] = ()


def at_least(low: int, most: int = int(MOST)) -> Rule:
    """Whole numbers from `low`."""
    short = f"a whole number of at least {low}"
    source = f"at_least({low})" if most == MOST else f"at_least({low}, {most})"
    return Rule(f"{short} and at most {most:,}", lambda value: low <= value <= most, short, source)


def interval(
    low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False, but: str = ""
) -> Rule:
    """Numbers between `low` and `high`, each end included unless it is open; `but` adds to the sentence."""
    sides = [f"{'above' if open_low else 'at least'} {low:g}"]
    most = min(high, MOST)
    if high <= MOST:
        sides.append(f"{'below' if open_high else 'at most'} {high:g}")
    short = " and ".join(sides)
    allowed = short if high <= MOST else f"{short} and at most {MOST:,.0f}"

    def holds(value: float) -> bool:
        above = value > low if open_low else value >= low
        return above and (value < most if open_high else value <= most)

    ends = [repr(low)] + ([repr(high)] if high <= MOST else [])
    options = [f"{name}=True" for name, is_open in (("open_low", open_low), ("open_high", open_high)) if is_open]
    source = f"interval({', '.join(ends + options + ([f'but={but!r}'] if but else []))})"
    return Rule(f"a number {allowed}" + (f"; {but}" if but else ""), holds, short, source)


def rounds_or_share(low: int, share: str) -> Rule:
    """A length in rounds, which can also be given as a share of the run's."""
    return Rule(
        f"a whole number from {low} to {MOST:,.0f}, or -1 for the share that {share} gives",
        lambda value: value == -1 or low <= value <= MOST,
        f"whole, from {low}, or -1",
        f"rounds_or_share({low}, {share!r})",
    )


def one_of(*choices: str) -> Rule:
    """One of these texts."""
    source = f"one_of({', '.join(map(repr, choices))})"
    return Rule("one of " + ", ".join(choices), lambda value: value in choices, source=source, names=choices)


def described(choices: Mapping[str, str]) -> str:
    """Names, each with its few words in brackets if it has any."""
    return ", ".join(f"{name} ({words})" if words else name for name, words in choices.items())


def choice(choices: Mapping[str, str]) -> Rule:
    """One of the names of a table in `config.choices`."""
    return replace(one_of(*choices), short=described(choices))


def name_or_class(*choices: str) -> Rule:
    """One of these texts, or a class of the user's."""
    return Rule(
        one_of(*choices).allowed + ", or your own class as 'module:Class'",
        lambda value: value in choices or (":" in value and is_encodable(value)),  # `config.own_class` says the rest
        ", ".join(choices) + ", or your own class as `module:Class`",
        names=choices,
    )


def text(short: str) -> Rule:
    """Any text: what it says is checked where it is read, and `short` tells the settings page what is allowed there."""
    return Rule("text", is_encodable, short)


def true_or_false() -> Rule:
    """No value of another type gets as far as a rule."""
    return Rule("true or false", lambda value: True, source="true_or_false()")


def closest(value: object, names: Iterable[str], before: str = "") -> str:
    """The end of a sentence that names the most similar of `names`, after what stands `before` all of them.

    It is empty if none is similar. Hyphens and underscores do not count: `resnet_50` is `resnet50`.
    """
    if not isinstance(value, str) or len(value) > 80:
        return ""
    known = {_squeezed(name): name for name in names}
    found = difflib.get_close_matches(_squeezed(value), known, 1, 0.6)
    return f" (did you mean {before + known[found[0]]!r}?)" if found else ""


def _squeezed(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def is_encodable(value: str) -> bool:
    """Whether a text can be written to a file and sent: lone surrogates cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_absolute(path: str) -> bool:
    """Whether a path is absolute, with the user's home folder in place of ``~``, if there is one, and can exist."""
    if not is_encodable(path) or "\0" in path or len(os.fsencode(path)) >= LONGEST_PATH:
        return False
    try:
        whole = Path(path).expanduser()
    except RuntimeError:
        return False
    return whole.is_absolute() and all(len(os.fsencode(part)) <= LONGEST_NAME for part in whole.parts)


def path_or_empty() -> Rule:
    return Rule(
        "an absolute path that can exist (or one in your home folder, ~), because Flower runs the app in another folder"
        " than yours",
        lambda value: not value or is_absolute(value),
        short="an absolute path, or one that starts with `~`",
    )


NAME = Rule(
    "a plain folder name of letters, digits, '.', '_' and '-', of at most 200 bytes",
    lambda value: re.fullmatch(r"(?!\.\.?$)[\w.-]*", value) is not None and len(value.encode()) <= LONGEST_RUN_NAME,
    "a plain folder name of letters, digits, '.', '_' and '-'",
)
RESUMABLE = Rule(
    "auto, or the absolute path of a run's folder or of a checkpoint in it",
    lambda value: value in ("", "auto") or is_absolute(value),
)
NAMED_WEIGHTS = re.compile(r"none|imagenet|[A-Z][A-Z0-9_]*")  # which of them a model has, `config.combinations` knows
WEIGHTS = Rule(
    "none, imagenet, DEFAULT, a name of torchvision's such as IMAGENET1K_V2, or the absolute path of a .safetensors,"
    " .pt or .pth file",
    lambda value: (
        NAMED_WEIGHTS.fullmatch(value) is not None
        or (Path(value).suffix in (".safetensors", ".pt", ".pth") and is_absolute(value))
    ),
    "none, imagenet (`IMAGENET1K_V1`), DEFAULT, a name of torchvision's such as `IMAGENET1K_V2`, or the absolute path"
    " of a .safetensors, .pt or .pth file",
    names=("none", "imagenet", "DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2"),
)
MODEL = Rule(
    "cnn, a network of torchvision such as resnet50, or timm:NAME; docs/models.md has them all",
    lambda value: value in ARCHITECTURES or TIMM_NAME.fullmatch(value) is not None,
    "cnn, one of torchvision's, such as resnet50 or convnext_tiny, or `timm:NAME`"
    " ([docs/models.md](models.md) has them all)",
    names=tuple(ARCHITECTURES),
)
TRANSITION = Rule(
    "estimate, clothing1m, or the absolute path of a file on the server",
    lambda value: value in ("estimate", "clothing1m") or is_absolute(value),
    source="TRANSITION",
)
TARGETS = Rule(
    "auto, or names of layers separated by commas, with * for any characters",
    lambda value: (
        value == "auto" or (re.fullmatch(r"[\w.*]+(,[\w.*]+)*", value) is not None and "auto" not in value.split(","))
    ),
    source="TARGETS",
)
