"""What the values of a message may be: names, types and ranges that the receiver knows before the message arrives.

A sender may be broken or hostile. Nothing here evaluates, prints or copies more of a value than it has to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from data.text import LONGEST, shown

LARGEST = 1e30  # of any number: sums and squares of thousands of them are still finite in float64


class Field(Protocol):
    """The rule for one value.

    Attributes:
        needed: Whether the value must be there.
    """

    @property
    def needed(self) -> bool: ...

    def problem(self, value: Any) -> str | None:
        """None if `value` obeys; else the end of a sentence that begins with its name."""
        ...


Schema = Mapping[str, Field]
"""The rules for all values of one record, by name: others may not be in it."""


@dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        low: The least that is allowed.
        high: The most that is allowed.
        whole: Whether it must be an integer; 3.0 counts as one.
        needed: See `Field`.
    """

    low: float = -LARGEST
    high: float = LARGEST
    whole: bool = False
    needed: bool = True

    @property
    def allowed(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.low == self.high:
            return f"{self.low:.12g}"
        return f"{kind} from {self.low:.12g} to {self.high:.12g}"

    def problem(self, value: Any) -> str | None:
        return None if self.holds(value) else f"is {shown(value)}; it must be {self.allowed}"

    def holds(self, value: Any) -> bool:
        """Whether `value` obeys; True and False are not numbers."""
        if type(value) not in (int, float) or not self.low <= value <= self.high:  # which NaN never is
            return False
        return not self.whole or value == math.floor(value)


@dataclass(frozen=True)
class Numbers:
    """A list of numbers.

    Attributes:
        each: The rule for every one of them.
        length: How many there are.
        needed: See `Field`.
        least: How few there may be; -1: no fewer than `length`.
    """

    each: Number
    length: int
    needed: bool = True
    least: int = -1

    def problem(self, value: Any) -> str | None:
        least = self.length if self.least < 0 else self.least
        if type(value) is not list or not least <= len(value) <= self.length:
            what = f"a list of {len(value)}" if type(value) is list else shown(value)
            count = self.length if least == self.length else f"{least} to {self.length}"
            return f"is {what}; it must be a list of {count} numbers"
        wrong = next((one for one in value if not self.each.holds(one)), None)
        return None if wrong is None else f"has {shown(wrong)} in it; each must be {self.each.allowed}"


@dataclass(frozen=True)
class Floats:
    """An array of finite float32 numbers, which travels beside the weights.

    Attributes:
        shape: Of the array.
        each: The rule for every number.
    """

    shape: tuple[int, ...]
    each: Number = field(default_factory=Number)

    def problem(self, value: np.ndarray) -> str | None:
        """None if `value` obeys; else the end of a sentence that begins with its name."""
        if value.dtype != np.float32 or value.shape != self.shape:
            return f"is {value.dtype} of shape {value.shape}; it must be float32 of shape {self.shape}"
        low, high = (float(value.min()), float(value.max())) if value.size else (self.each.low, self.each.low)
        wrong = next((one for one in (low, high) if not self.each.holds(one)), None)  # NaN is in both
        if wrong is None and self.each.whole and len(broken := value[value != np.floor(value)]):
            wrong = float(broken[0])
        return None if wrong is None else f"has {shown(wrong)} in it; each must be {self.each.allowed}"


@dataclass(frozen=True)
class Text:
    """Printable characters on one line.

    Attributes:
        longest: How many there may be.
        needed: See `Field`.
    """

    longest: int = LONGEST
    needed: bool = True

    def problem(self, value: Any) -> str | None:
        if isinstance(value, str) and len(value) <= self.longest and value.isprintable():
            return None
        return f"is {shown(value)}; it must be printable text of at most {self.longest} characters"


@dataclass(frozen=True)
class Texts:
    """A list of texts.

    Attributes:
        most: How many there may be.
        needed: See `Field`.
    """

    most: int
    needed: bool = True

    def problem(self, value: Any) -> str | None:
        if type(value) is not list or len(value) > self.most:
            what = f"a list of {len(value)}" if type(value) is list else shown(value)
            return f"is {what}; it must be a list of at most {self.most} texts"
        wrong = (problem for one in value if (problem := Text().problem(one)))
        return next(wrong, None)


def problem_of(record: Mapping[str, Any], schema: Schema) -> str | None:
    """The first thing in `record` that does not obey, as part of a sentence; None if all does."""
    for name, rule in schema.items():
        if name not in record:
            if rule.needed:
                return f"{name!r} is missing"
        elif problem := rule.problem(record[name]):
            return f"{name!r} {problem}"
    if len(record) > len(schema) or not record.keys() <= schema.keys():
        unknown = next(name for name in record if name not in schema)
        return f"{shown(unknown)} is not among the values that are expected"
    return None
