"""Values that nobody should type, for every key of the run config and every flag of every command."""

import math
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**5000, 0.0, -0.0, 0.5, 1e-320, 1e300, 1e308, -1e308, math.nan, math.inf,
    -math.inf, True, False,
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "x", "0", "-1", "nan", "true", ".", "..", "/", "~", "~nosuchuser", "~nosuchuser/x", "/dev/null/x",
    "/nowhere", "/nowhere.pt", "/proc/self/mem/x.toml", "nowhere.toml", "a/b",
    "../x:y", "x:y", "x:", ":y", "__main__:x", "os:path", "auto", "file",
    "/" + "a" * 300, "/" + "a/" * 3000, "a" * 300, "/a\0b", "\0", "\ud800", "/\ud800", "\udcff", "~\0", "é" * 300,
    "\x1b[31m", "a\nb", "{0} %s $x", "'", '"', "=", "a=", "=1", "a=1", "a=1 a=2", "labels=1", "self=1", "args=1",
    "seed=1", "scheme='x'", "alpha=[[[1", "alpha=" + "[" * 9000 + "]", "alpha=" + "9" * 5000, "alpha=1e400",
    "alpha=nan", "alpha=true", "alpha='x'", "alpha=[1]", "alpha=2020-01-01", "rate=-1", "rate='x'", "q=1e308",
    "q=-1", "path=1", "path='\\ud800'", "path='~nosuchuser'", "path='/" + "a" * 300 + "'", "path='a\0b'",
    "eta=1e308", "eta='\x1b[31m'", "rank=0", "rank=9 targets=','", "targets='a\x1b[31m'", "freeze-a=1", "nesterov='x'",
    "beta1=1", "final=2", "every=0.5",
)  # fmt: skip
ODD: tuple[Any, ...] = (*NUMBERS, *TEXTS)


def is_a_sentence(text: str) -> bool:
    """One line that ends as a sentence does, and can be shown; no word of Python's or a library's own."""
    foreign = ("Traceback", "Error:", "Errno", "object at 0x", "not supported between", "<class", "NoneType")
    return text.isprintable() and text.endswith((".", "?", "]")) and not any(word in text for word in foreign)
