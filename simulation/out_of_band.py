"""Models between a simulation's server and its actors: copied once on the way there and twice back, not three times.

Ray pickles messages. Bytes inside a pickle are copied into it, with it into Ray's shared memory, and out of it again;
buffers that pickle may leave outside of it (PEP 574) are copied there once, and read where they are.
"""

import importlib
import pickle
from copyreg import __newobj__  # type: ignore[attr-defined]
from typing import Any

from flwr.app import Array, Message


def leave_arrays_out_of_pickles() -> None:
    """In this process, for Ray's own pickles alone; whoever reads one needs nothing but Flower."""
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    cloudpickle.CloudPickler.dispatch[Array] = reduced


def reduced(array: Array) -> tuple[Any, ...]:
    """What pickle is to make of an array: all but its bytes."""
    state = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype, "data": pickle.PickleBuffer(array.data)}
    return __newobj__, (Array,), state


def take_home(message: Message) -> None:
    """Copy a message's arrays out of Ray's shared memory, which holds less than this process may."""
    if message.has_content():
        for record in message.content.array_records.values():
            for array in record.values():
                if not isinstance(array.data, bytes):
                    array.data = bytes(array.data)
