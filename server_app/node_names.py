"""Real nodes by the names that an operator registered, in every line of the log that would say their numbers.

Flower numbers nodes at random, with up to 20 digits. `deploy` registers each with the name of its folder.
"""

import logging
import re
from collections.abc import Iterable

from flwr.proto.node_pb2 import NodeInfo

from data.text import one_line

LONGEST = 60  # characters of a name
_NUMBER = re.compile(r"\b(?:(?:node|client|Node|Client) )?(\d{4,20})\b")
_names: dict[int, str] = {}


class NodeNames(logging.Filter):
    """Puts names for numbers; sentences of clients and of Flower pass here like ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _names:
            record.msg, record.args = with_names(record.getMessage()), ()
        return True


def remember(nodes: Iterable[NodeInfo]) -> None:
    """Take the names of nodes that have one."""
    _names.update({node.node_id: one_line(node.name, LONGEST) for node in nodes if node.name.strip()})


def forget() -> None:
    """Begin with no name, for a new run."""
    _names.clear()


def name_of(node_id: int) -> str | None:
    """None for a node without a name, such as any of a simulation."""
    return _names.get(node_id)


def with_names(text: str) -> str:
    return _NUMBER.sub(lambda found: _names.get(int(found[1]), found[0]), text)
