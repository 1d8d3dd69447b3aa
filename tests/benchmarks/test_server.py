"""The server's benchmarks run, at the smallest size; nothing here is timed."""

import numpy as np
import pytest

from benchmarks.server.memory import CONTENDERS, aggregate, in_fresh_process, peak_in_models, whole_rounds
from benchmarks.server.prepared import ARRIVALS, FileReplies, PreparedGrid, WireReplies, model_arrays, record_of
from benchmarks.server.rounds import COLUMNS, measure
from server_app.grid import OrderedGrid
from tests.fakes import instruction


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileReplies:
    return FileReplies.write(tmp_path_factory.mktemp("model") / "arrays", record_of(model_arrays("tiny")))


def test_both_kinds_of_prepared_replies_carry_the_model(source: FileReplies) -> None:
    arrays = model_arrays("tiny")
    assert source.model_bytes == sum(value.nbytes for value in arrays.values())
    message = instruction(node_id=7)
    for make_reply in (source, WireReplies(record_of(arrays))):
        reply = make_reply(message)
        assert reply.metadata.reply_to_message_id == message.metadata.message_id
        assert reply.metadata.src_node_id == 7
        for name, value in arrays.items():
            np.testing.assert_array_equal(reply.content.array_records["arrays"][name].numpy(), value)


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_every_arrival_gives_every_reply(source: FileReplies, arrival: str) -> None:
    grid = OrderedGrid(PreparedGrid(4, source, arrival), [1, 2, 3, 4])
    replies = grid.send_and_receive([instruction(node_id=node_id) for node_id in (2, 4, 1, 3)])
    assert [reply.metadata.src_node_id for reply in replies] == [2, 4, 1, 3]


@pytest.mark.parametrize("contender", CONTENDERS)
def test_what_memory_is_measured_on_runs(source: FileReplies, contender: str) -> None:
    aggregate(contender, source, 3)
    whole_rounds(contender, source, 3, 2, "tiny")


def test_memory_is_measured_in_a_process_of_its_own(source: FileReplies) -> None:
    assert in_fresh_process(peak_in_models, CONTENDERS[0], 2, source, 0, "tiny") >= 0


def test_rounds_fill_a_row() -> None:
    row = measure("tiny", 3, 1, 1)
    assert len(row) == len(COLUMNS) - 1
    assert all(isinstance(cell, float) and cell > 0 for cell in row)
