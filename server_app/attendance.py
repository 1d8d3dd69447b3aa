"""Who of a run's clients is connected, round after round: waits for them, but not for ever, and lets them come back.

Flower's sampling waits without limit until `min_available_nodes` and `min_train_nodes` are connected. At a run's start
that is what its owner wants. Later a site may have left for good, and one site must not stop the others.

A client keeps its place for the whole run. A node that comes back under another id, as one without a key of its own
does when it is restarted, is asked the questions of the roll call again, and gets its place back if it holds the same
images. A node with images that nobody held at the roll call takes no part in this run.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

from flwr.common import log
from flwr.serverapp.strategy import Strategy

from learning.server_half import Choice
from server_app.grid import OrderedGrid
from server_app.members import Member, identity
from server_app.stopping import RunStoppedError

RETURN_SECONDS = 30.0  # to wait for a node that is away; a restarted one reconnects within seconds
ALONE_SECONDS = 600.0  # the same if the run cannot go on without it and sets no `round-timeout`
NAMED = 12  # clients named in the log
FRACTION = "fraction_train"  # of a strategy, as the minima are
MINIMA = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")


class Attendance:
    """The members of a run, by the node ids that they have now.

    Attributes:
        members: By node id, in partition order.
    """

    def __init__(
        self,
        grid: OrderedGrid,
        members: Sequence[Member],
        strategy: Strategy,
        round_timeout: float = 0.0,
        introduce: Callable[[list[int]], list[Member]] | None = None,
    ) -> None:
        """Take the roll call's members.

        Args:
            grid: Reaches them.
            members: In partition order.
            strategy: Its minima say how many clients a round needs.
            round_timeout: Seconds to wait for nodes at most; 0: as long as the constants above say.
            introduce: Holds a roll call of these nodes; the members that they would be. None: nobody can come back.
        """
        self.members = {member.node_id: member for member in members}
        self._grid = grid
        self._round_timeout = round_timeout
        self._introduce = introduce
        # A private strategy wraps the one that samples.
        self._sampler: Any = getattr(strategy, "strategy", strategy)
        self._minima = {name: value for name in MINIMA if type(value := getattr(self._sampler, name, None)) is int}
        self._missed: set[int] = set()  # partitions for which a round has waited in vain
        self._judged = set(self.members)  # nodes that need not be asked who they are
        least = self._minima.get("min_train_nodes", 1)
        if least > len(members):
            log(WARNING, "'min-train-nodes' is %d, but there are %d clients: all train.", least, len(members))

    def gather(self, server_round: int) -> None:
        """Wait until the round can begin.

        Raises:
            RunStoppedError: Fewer than `min_train_nodes` clients are connected, and none comes back in time.
        """
        least = min(max(1, self._minima.get("min_train_nodes", 1)), len(self.members))
        wanted = min(max(least, self._minima.get("min_available_nodes", 1)), len(self.members))
        away = self._wait(wanted, min(self._round_timeout or RETURN_SECONDS, RETURN_SECONDS), patient=False)
        if len(self.members) - len(away) < least:
            away = self._wait(least, self._round_timeout or ALONE_SECONDS, patient=True)
        if (here := len(self.members) - len(away)) < least:
            raise RunStoppedError(
                f"round {server_round}: {here} of {len(self.members)} clients are connected, and {least} are needed;"
                " start their nodes again, then resume this run."
            )
        if away - self._missed:
            named = ", ".join(map(str, sorted(away)[:NAMED])) + (", ..." if len(away) > NAMED else "")
            log(WARNING, "Round %d goes on without clients that are not connected: %s.", server_round, named)
        self._missed = away

    def connected(self) -> list[int]:
        """The partitions of the clients that are connected now, in their order."""
        return [self.members[node_id].partition_id for node_id in self._grid.get_node_ids()]

    @contextlib.contextmanager
    def sampling(self, choice: Choice | None = None) -> Iterator[None]:
        """Meanwhile the strategy demands no more clients than are connected, and waits for no others.

        Args:
            choice: The clients among whom it samples, and how many; None: all, and as many as it always does.
        """
        connected = list(self._grid.get_node_ids())
        changed: dict[str, Any] = {}
        if choice is not None:
            wanted = set(choice.clients)
            connected = [node_id for node_id in connected if self.members[node_id].partition_id in wanted]
            if hasattr(self._sampler, FRACTION):
                # Flower samples int(clients * fraction).
                changed[FRACTION] = min(1.0, choice.count / max(1, len(connected)) + 1e-9)
        changed.update((name, min(least, len(connected))) for name, least in self._minima.items())
        before = {name: getattr(self._sampler, name) for name in changed}
        with self._grid.waiting(self._round_timeout or ALONE_SECONDS), self._grid.only(connected):
            try:
                for name, value in changed.items():
                    setattr(self._sampler, name, value)
                yield
            finally:
                for name, value in before.items():
                    setattr(self._sampler, name, value)

    def _wait(self, wanted: int, seconds: float, *, patient: bool) -> set[int]:
        """Wait for so many members; the partitions of those that are away.

        Unless `patient`, nobody waits again for those for whom a round has waited before.
        """
        deadline, logged = time.monotonic() + seconds, False
        while True:
            self._take_back()
            connected = set(self._grid.get_node_ids())
            away = {member.partition_id for node_id, member in self.members.items() if node_id not in connected}
            enough = len(self.members) - len(away) >= wanted or (not patient and away <= self._missed)
            if enough or time.monotonic() > deadline:
                return away
            if not logged:
                here, logged = len(self.members) - len(away), True
                log(INFO, "Waiting up to %g s for clients: %d connected, %d needed.", seconds, here, wanted)
            self._grid.pause(1.0)

    def _take_back(self) -> None:
        """Give nodes with new ids the places of members that are away, if they hold what those held."""
        if self._introduce is None:
            return
        present = set(self._grid.all_node_ids())
        strangers = sorted(present - self._judged)
        away = {identity(member): member for node_id, member in self.members.items() if node_id not in present}
        if not strangers or not away:
            return
        self._judged |= set(strangers)
        for stranger in self._introduce(strangers):
            known = away.pop(identity(stranger), None)
            if known is None:
                log(
                    WARNING,
                    "Node %d takes no part: it does not hold what a missing client held.",
                    stranger.node_id,
                )
                continue
            log(INFO, "Client %d is back, as node %d.", known.partition_id, stranger.node_id)
            back = replace(stranger, partition_id=known.partition_id)
            self.members = {
                back.node_id if node_id == known.node_id else node_id: back if member is known else member
                for node_id, member in self.members.items()
            }
            self._grid.set_node_ids(list(self.members))
