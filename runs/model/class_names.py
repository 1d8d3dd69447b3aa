"""Which class of a model each class of other data is, by its name."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.text import label
from runs.errors import RunsError
from runs.printing import counted

NAMED = 5  # classes in a sentence


def matched(names: Sequence[str], of_model: Sequence[str], where: str) -> np.ndarray:
    """The model's number of each class, (n,) int64; -1 for one that it does not know.

    Names need not be spelt in the same case, nor accents be written in the same way.

    Raises:
        RunsError: It knows none.
    """
    alike = Counter(map(_plain, of_model))
    numbers = {_plain(name): number for number, name in enumerate(of_model) if alike[_plain(name)] == 1}
    numbers |= {name: number for number, name in enumerate(of_model)}
    found = np.array([numbers.get(name, numbers.get(_plain(name), -1)) for name in names], np.int64)
    if not (found >= 0).any():
        raise RunsError(
            f"{where} has the {in_short(names)}, and the model the {in_short(of_model)}; at least one name must be the"
            " same."
        )
    return found


def about_unknown(names: Sequence[str], images: int) -> str:
    """The sentence about classes of the data that the model does not know."""
    left_out = f"{counted(images, 'image')} of {in_short(names)} left out"
    return f"{left_out}: the model does not know {'it' if len(names) == 1 else 'them'}."


def in_short(names: Sequence[str]) -> str:
    """``classes cat, dog and 3 more``."""
    first = ", ".join(map(label, names[:NAMED]))
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"class{'es' if len(names) > 1 else ''} {first}{more}"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()
