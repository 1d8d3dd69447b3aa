"""Values and texts of somebody else inside a sentence or a log: short, printable, on one line."""

import reprlib
from typing import Any

LONGEST = 200  # characters
LABEL = 40
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = 4


def shown(value: Any) -> str:
    """`value` as Python writes it, but short, printable and on one line."""
    if isinstance(value, int) and abs(value).bit_length() > 128:  # Python refuses to print very long ones
        return f"a number of {value.bit_length()} bits"
    return one_line(_SHORT.repr(value))


def beginning(data: bytes) -> str:
    """How a file begins, for people: the first line of a text in quotation marks, or bytes as hexadecimal numbers."""
    line = data[:24].partition(b"\n")[0].rstrip(b"\r").decode("latin-1")
    return shown(line) if line and line.isascii() and line.isprintable() else f"the bytes {data[:8].hex(' ')}"


def printable(name: object) -> str:
    """A path or another name on one line, whatever characters it has."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def one_line(text: Any, longest: int = LONGEST) -> str:
    """Somebody else's text, for a log: its lines joined by " | ", what cannot be printed replaced by "?", and cut.

    Args:
        text: Of any length; what is not a text counts as empty.
        longest: How many characters to keep.
    """
    if not isinstance(text, str) or not text.strip():
        return "no reason given"
    lines = text.strip()[: 2 * longest].splitlines()
    line = " | ".join(part.strip() for part in lines if part.strip())
    line = "".join(character if character.isprintable() else "?" for character in line)
    cut = len(line) > longest or len(text.strip()) > 2 * longest
    return f"{line[:longest]} [... of {len(text):,} characters]" if cut else line


def label(name: str, longest: int = LABEL) -> str:
    """A class's name for a table or a picture: cut, and "?" for what cannot be printed or changes what is around it."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
