"""The log says the names of real nodes."""

import logging
from collections.abc import Iterator

import pytest
from flwr.proto.node_pb2 import NodeInfo

from server_app.node_names import NodeNames, forget, remember, with_names

ONE, TWO = 12345678901234567890, 4711000000000000001


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    remember([NodeInfo(node_id=ONE, name="node-1"), NodeInfo(node_id=TWO, name="ward\x1b[2J"), NodeInfo(node_id=99999)])
    yield
    forget()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"Still waiting for node {ONE}; 'x'", "Still waiting for node-1; 'x'"),
        (f"client 0 is node {ONE}", "client 0 is node-1"),
        (f"Reply left out: client {TWO}: no images", "Reply left out: ward?[2J: no images"),
        (f"nodes {ONE} and {TWO} hold the same images", "nodes node-1 and ward?[2J hold the same images"),
        ("node 99999: no reply in time.", "node 99999: no reply in time."),
        ("client 1234 of 5000 images, 0.12345", "client 1234 of 5000 images, 0.12345"),
    ],
)  # fmt: skip
def test_names_stand_for_numbers(text: str, named: str) -> None:
    assert with_names(text) == named
    record = logging.LogRecord("flwr", logging.INFO, "", 1, "%s", (text,), None)
    assert NodeNames().filter(record)
    assert record.getMessage() == named


def test_a_new_run_begins_without_names() -> None:
    forget()
    assert with_names(f"node {ONE}") == f"node {ONE}"
