"""The model as it travels over a network: a few pieces instead of hundreds of arrays, optionally in half precision.

Flower makes a separate request for every array of a record, at each of four hops: a ResNet-50 has 320. `pack` writes
them into pieces of about 5 MB instead, as safetensors.

With ``payload = "bf16"`` or ``"fp16"``, weights travel at half their size, both ways. A client then sends its update,
not its model, and the server adds it to the model that it sent, of which it holds the float32 original:

    w_k = w_t + half(trained_k - half(w_t)),    training starts at half(w_t)

Rounding the models themselves would lose every update smaller than half a step of the short format, round after round.
Only float32 arrays are rounded, BatchNorm's statistics among them; integers, such as its counters, travel unchanged.
bfloat16 bits are stored as uint16, since NumPy has no such type.
"""

from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord
from safetensors import SafetensorError
from safetensors.numpy import load, save

from messages.arrays import as_array, as_numpy

PIECE = "piece-"
PIECE_BYTES = 5 << 20  # Flower itself splits larger arrays into pieces of this size


def is_packed(record: ArrayRecord) -> bool:
    """Whether a record holds pieces rather than arrays by name."""
    return len(record) > 0 and all(name.startswith(PIECE) for name in record)


def pack(arrays: Mapping[str, np.ndarray], kind: str) -> ArrayRecord:
    """Write named arrays into pieces; float32 ones as `kind`.

    Raises:
        OverflowError: A finite value is too large for `kind`.
    """
    record = ArrayRecord()
    piece: dict[str, np.ndarray] = {}
    size = 0
    for number, (name, value) in enumerate(arrays.items()):
        short = shorten(value, kind, name)
        if piece and size + short.nbytes > PIECE_BYTES:
            record[f"{PIECE}{len(record)}"] = _as_array(piece)
            piece, size = {}, 0
        piece[f"{number} {name}"] = np.ascontiguousarray(short).reshape(short.shape)  # it turns 0 dimensions into 1
        size += short.nbytes
    if piece:
        record[f"{PIECE}{len(record)}"] = _as_array(piece)
    return record


def unpack(record: ArrayRecord) -> dict[str, np.ndarray]:
    """The arrays of a packed or plain record in their order, half precision widened to float32.

    Those of a plain record are read-only views of its bytes.

    Raises:
        ValueError: A piece cannot be read.
    """
    if not is_packed(record):
        return {name: as_numpy(array) for name, array in record.items()}
    found: list[tuple[int, str, np.ndarray]] = []
    for label, array in record.items():
        try:
            for key, value in load(as_numpy(array).tobytes()).items():
                number, _, name = key.partition(" ")
                found.append((int(number), name, lengthen(value)))
        except (SafetensorError, ValueError, EOFError, KeyError) as error:
            raise ValueError(f"{label!r} cannot be read ({error})") from None
    return {name: value for _, name, value in sorted(found, key=lambda one: one[0])}


def difference(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``new - old`` of float32 arrays; other arrays are taken from `new`."""
    return {name: value - old[name] if value.dtype == np.float32 else value for name, value in new.items()}


def shorten(value: np.ndarray, kind: str, name: str) -> np.ndarray:
    """A float32 array as `kind`, rounded to nearest, ties to even; any other array unchanged.

    Raises:
        OverflowError: A finite value is too large for `kind`.
    """
    rounded = PAYLOADS[kind]
    if value.dtype != np.float32 or rounded is None:
        return value
    short, infinite = rounded(value)
    if (infinite & np.isfinite(value)).any():
        raise OverflowError(f"{name!r} holds {np.abs(value).max():g}, which is too large for {kind}")
    return short


def _as_bf16(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 to bfloat16's bits as uint16, of the same shape, and where they are infinite (bool)."""
    bits = np.ascontiguousarray(value).view(np.uint32).reshape(value.shape)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    short = np.where(np.isnan(value), np.uint32(0x7FC0), rounded).astype(np.uint16)
    return short, (short & 0x7FFF) == 0x7F80


def _as_fp16(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 to float16, of the same shape, and where it is infinite (bool)."""
    with np.errstate(over="ignore"):
        short = value.astype(np.float16)
    return short, np.isinf(short)


# How float32 is rounded, None: not at all; `config.choices` has the same names. `lengthen` must tell results by dtype.
PAYLOADS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None] = {
    "fp32": None,
    "bf16": _as_bf16,
    "fp16": _as_fp16,
}


def lengthen(value: np.ndarray) -> np.ndarray:
    """Widen what `shorten` made to float32."""
    if value.dtype == np.uint16:
        return (value.astype(np.uint32) << 16).view(np.float32)
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _as_array(piece: dict[str, np.ndarray]) -> Array:
    return as_array(np.frombuffer(save(piece), np.uint8))
