"""Models between a simulation's server and its actors: copied once on the way there and twice back, not three times.

Ray pickles messages. Bytes inside a pickle are copied into it, with it into Ray's shared memory, and out again; buffers
that stay outside the pickle (PEP 574) are copied into shared memory once and read in place.
"""

import importlib
import pickle
from copyreg import __newobj__  # type: ignore[attr-defined]
from typing import Any

from flwr.app import Array, Message


def leave_arrays_out_of_pickles() -> None:
    """Affects this process and Ray's own pickles only; reading such a pickle needs nothing but Flower."""
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    cloudpickle.CloudPickler.dispatch[Array] = reduced


def reduced(array: Array) -> tuple[Any, ...]:
    """How to pickle an array: everything except its bytes, which go out of band."""
    state = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype, "data": pickle.PickleBuffer(array.data)}
    return __newobj__, (Array,), state


def copy_out_of_shared_memory(message: Message) -> None:
    """Copy a message's arrays out of Ray's shared memory, which is smaller than this process's own."""
    if message.has_content():
        for record in message.content.array_records.values():
            for array in record.values():
                if not isinstance(array.data, bytes):
                    array.data = bytes(array.data)
