"""Whether a reply's model can be one that a client trained from the model that it was sent.

    ||Delta_k|| = ||w_k - w_t||    over all parameters; BatchNorm's buffers do not count

A mean has no defence of its own: one client that sends numbers a million times too large decides it. What no training
gives is always refused. What is only unusual is logged, and refused if `max-update-norm` or `max-update-ratio` asks for
it. A strategy that withstands liars within these limits is a matter of docs/strategies.md.
"""

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord

from data.text import shown
from messages.arrays import all_finite, as_numpy
from server_app.strategies.batchnorm import VARIANCE, is_counter, is_parameter

BLOCK = 1 << 17  # numbers whose differences stay in the CPU's cache
LARGEST = 1e18  # of a buffer's values; their squares are float32
MOST_STEPS = 2**53  # that a counter may have counted
# An update so many times as long as the model itself replaces it by noise.
MOST_MODELS = 100.0
UNUSUAL = 20.0  # times the median of a round; clients of unlike sizes differ less
ROUNDING = 1e-3  # share of the clipping norm by which rounding may lengthen a clipped update


@dataclass(frozen=True)
class Slot:
    """One array of the model that was sent, and what may replace it.

    Attributes:
        name: Of the array.
        value: What was sent.
        dtype: Its dtype as Flower writes it.
        least: The smallest number that may be in it, if it is a buffer.
        most: Likewise the largest; NaN for a parameter, whose update is measured instead.
    """

    name: str
    value: np.ndarray
    dtype: str
    least: float
    most: float

    @classmethod
    def of(cls, name: str, array: Array, is_apart: bool = False) -> "Slot":
        value = as_numpy(array)
        counter = is_counter(name, value.dtype)
        least, most = (0.0, MOST_STEPS) if counter else (-LARGEST, LARGEST)
        least = 0.0 if name.endswith(VARIANCE) else least
        measured = is_parameter(name, value.dtype) and not is_apart
        return cls(name, value, str(value.dtype), least, math.nan if measured else most)

    @property
    def is_parameter(self) -> bool:
        return self.most != self.most

    def squares(self, array: Array) -> float:
        """``||array - sent||^2`` of a parameter, 0 of a buffer.

        Raises:
            ValueError: The array cannot be read, has another dtype or shape, or claims to, or holds numbers that no
                training gives; the message begins with its name.
        """
        try:
            return self._squares(self._replacement(array))
        except ValueError as error:
            raise ValueError(f"{self.name!r} {error}") from None

    def _replacement(self, array: Array) -> np.ndarray:
        try:
            value = as_numpy(array)
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None
        if value.dtype != self.value.dtype:
            raise ValueError(f"is {value.dtype}, not {self.dtype}")
        if value.shape != self.value.shape:
            raise ValueError(f"has shape {value.shape}, not {self.value.shape}")
        if array.dtype != self.dtype or tuple(array.shape) != value.shape:
            raise ValueError(f"claims to be {shown(array.dtype)} of shape {shown(tuple(array.shape))}, which it is not")
        return value

    def _squares(self, value: np.ndarray) -> float:
        if self.is_parameter:
            squares = squared_distance(value, self.value)
            if not math.isfinite(squares) and not all_finite(value):
                raise ValueError("holds a value that is not finite")
            return squares
        if value.size:
            low, high = float(value.min()), float(value.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("holds a value that is not finite")
            if low < self.least or high > self.most:
                wrong = low if low < self.least else high
                raise ValueError(f"holds {wrong:g}; it must be from {self.least:g} to {self.most:g}")
        return 0.0


def squared_distance(value: np.ndarray, other: np.ndarray | None) -> float:
    """``||value - other||^2`` in the arrays' own precision, blockwise; infinite or NaN if that overflows.

    Args:
        value: Any shape, floating point.
        other: The same shape and dtype; None stands for zeros.
    """
    flat, sent = value.reshape(-1), None if other is None else other.reshape(-1)
    buffer = np.empty(BLOCK, flat.dtype) if flat.size > BLOCK else None
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        if sent is not None:
            out = None if buffer is None else buffer[: block.size]
            block = np.subtract(block, sent[start : start + BLOCK], out=out)
        total += float(np.dot(block, block))
    return total


class ModelCheck:
    """Judges the models of one round.

    Attributes:
        norms: By partition, ||Delta_k|| of the models without a problem.
    """

    def __init__(
        self,
        sent: ArrayRecord,
        *,
        clipping_norm: float = math.inf,
        max_norm: float = 0.0,
        max_ratio: float = 0.0,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare for a round.

        Args:
            sent: w_t, as every client received it.
            clipping_norm: C, if clients clip their own updates.
            max_norm: A longer update is refused; 0: none is.
            max_ratio: Likewise, in units of the round's median; see `too_long`.
            apart: Names of what each client has of its own: no update of what was sent, so its length does not count.
        """
        self._slots = {name: Slot.of(name, array, name in apart) for name, array in sent.items()}
        parameters = [slot.value for slot in self._slots.values() if slot.is_parameter]
        self._length = math.sqrt(math.fsum(squared_distance(value, None) for value in parameters))
        self._clipping_norm = clipping_norm
        self._max_norm, self._max_ratio = max_norm or math.inf, max_ratio or math.inf
        self.norms: dict[int, float] = {}

    def problem(self, partition: int, model: ArrayRecord) -> str | None:
        """Why this reply's model must not reach the strategy, as the end of a sentence, or None."""
        if different := model.keys() ^ self._slots.keys():
            return f"its arrays are not those of the model ({shown(min(different))})"
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                squares = math.fsum([self._slots[name].squares(array) for name, array in model.items()])
        except ValueError as error:
            return str(error)
        norm = math.sqrt(squares) if squares == squares else math.inf  # NaN: differences that overflowed both ways
        if problem := self._problem_of_norm(norm):
            return problem
        self.norms[partition] = norm
        return None

    def release(self) -> None:
        """Let go of the model; the norms stay."""
        self._slots = {}

    def _problem_of_norm(self, norm: float) -> str | None:
        if norm > MOST_MODELS * max(1.0, self._length):
            return (
                f"its update is {norm:.3g} long, and the model itself {self._length:.3g}; it may be"
                f" {MOST_MODELS:g} times as long at most"
            )
        if norm > self._clipping_norm * (1 + ROUNDING) + 1e-6 * self._length:
            return f"its update is {norm:.6g} long, but clients clip to {self._clipping_norm:.6g}"
        if norm > self._max_norm:
            return f"its update is {norm:.3g} long, and 'max-update-norm' is {self._max_norm:g}"
        return None

    @property
    def median(self) -> float:
        """Of the norms, the lower of two middle ones: half of the clients must lie to raise it. 0 measures nothing."""
        return sorted(self.norms.values())[(len(self.norms) - 1) // 2] if self.norms else 0.0

    def too_long(self) -> dict[int, str]:
        """By partition, why an update is refused for being longer than `max_ratio` medians, now that all are known."""
        if not (median := self.median):
            return {}
        return {
            partition: f"its update is {norm:.3g} long, {norm / median:.3g} times the round's median, and"
            f" 'max-update-ratio' is {self._max_ratio:g}"
            for partition, norm in self.norms.items()
            if norm > self._max_ratio * median
        }

    def unusual(self) -> dict[int, float]:
        """By partition, the norms above 20 medians, longest first."""
        limit = UNUSUAL * self.median or math.inf
        found = [(norm, partition) for partition, norm in self.norms.items() if norm > limit]
        return {partition: norm for norm, partition in sorted(found, reverse=True)}
