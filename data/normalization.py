"""Mean and deviation of each colour channel: how inputs are normalised, as numbers.

`data.images.channels` measures them on images; `task.NORMALIZATIONS` has published ones by name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Triple = tuple[float, float, float]
LEAST_DEVIATION = 1e-6  # the last digit that is kept; inputs divided by less are as good as infinite
NUMBERS = {  # what each must be, and between which ends
    "mean": (0.0, "three numbers from 0 to 1, of red, green and blue"),
    "deviation": (LEAST_DEVIATION, f"three numbers from {LEAST_DEVIATION:f} to 1, of red, green and blue"),
}


class Normalization(NamedTuple):
    """What is subtracted from inputs between 0 and 1, and by what the rest is divided; of red, green and blue."""

    mean: Triple
    deviation: Triple

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Normalization":
        """The numbers that a file or a setting gives under these two names.

        Raises:
            ValueError: One of them is missing, or not what it must be; the sentence has no full stop.
        """
        return cls(_triple("mean", values), _triple("deviation", values))

    def as_args(self) -> str:
        """As `normalization-args` has them; reading this gives the same numbers bit for bit."""
        return f"mean={list(self.mean)} deviation={list(self.deviation)}"


def _triple(name: str, values: Mapping[str, Any]) -> Triple:
    least, wanted = NUMBERS[name]
    given = values.get(name)
    if not isinstance(given, list | tuple) or len(given) != 3 or not all(_is_within(least, one) for one in given):
        raise ValueError(f"{name} must be {wanted}")
    red, green, blue = map(float, given)
    return red, green, blue


def _is_within(least: float, value: Any) -> bool:
    return type(value) in (int, float) and least <= value <= 1
