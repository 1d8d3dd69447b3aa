"""Models in Ray's pickles: what is copied, and that nothing else changes."""

import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from ray import cloudpickle

from messages.arrays import as_numpy
from simulation.out_of_band import copy_out_of_shared_memory, leave_arrays_out_of_pickles
from tests.fakes import instruction


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    before = dict(cloudpickle.CloudPickler.dispatch.maps[0])
    leave_arrays_out_of_pickles()
    yield
    cloudpickle.CloudPickler.dispatch.maps[0].clear()
    cloudpickle.CloudPickler.dispatch.maps[0].update(before)


def _arrays(message: Message) -> dict[str, Array]:
    return dict(message.content.array_records["arrays"])


def _message() -> Message:
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7), "empty": np.zeros((0, 2))}
    content = RecordDict({"arrays": ArrayRecord({name: Array(value) for name, value in values.items()})})
    return Message(content, reply_to=instruction())


def test_arrays_stay_out_of_the_pickle_and_are_read_in_place() -> None:
    sent = _message()
    left_out: list[pickle.PickleBuffer] = []
    text = cloudpickle.dumps(sent, protocol=5, buffer_callback=left_out.append)
    assert [bytes(buffer.raw()) for buffer in left_out] == [a.data for a in _arrays(sent).values()]
    assert b"\x93NUMPY" not in text
    memory = [bytearray(buffer.raw()) for buffer in left_out]
    read = pickle.loads(text, buffers=[memoryview(part).toreadonly() for part in memory])
    for name, array in _arrays(read).items():
        np.testing.assert_array_equal(as_numpy(array), _arrays(sent)[name].numpy())
    memory[0][-4:] = np.float32(99).tobytes()  # no copy was made
    assert as_numpy(_arrays(read)["w"])[1, 2] == 99
    copy_out_of_shared_memory(read)
    memory[0][-4:] = np.float32(5).tobytes()
    assert all(type(array.data) is bytes for array in _arrays(read).values())
    assert _arrays(read)["w"].numpy()[1, 2] == 99


def test_other_pickles_and_copies_are_unchanged() -> None:
    sent = _message()
    for other in (pickle.loads(pickle.dumps(sent)), copy.deepcopy(sent), cloudpickle.loads(cloudpickle.dumps(sent))):
        for name, array in _arrays(other).items():
            np.testing.assert_array_equal(as_numpy(array), _arrays(sent)[name].numpy())
            assert (array.dtype, array.shape, array.stype) == tuple(
                getattr(_arrays(sent)[name], field) for field in ("dtype", "shape", "stype")
            )


def test_an_error_has_no_arrays_to_copy_out_of_shared_memory() -> None:
    copy_out_of_shared_memory(Message(Error(1, "no"), reply_to=instruction()))
