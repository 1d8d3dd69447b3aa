"""The messages of a run's rounds: what goes to each client, and which of its replies count."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from logging import INFO, WARNING
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common import log
from flwr.serverapp.strategy import Strategy

from config.run_config import RunConfig
from learning.server_half import Choice, ServerHalf, Told
from messages import keys
from messages.arrays import as_array
from methods import Method, build_method
from server_app.attendance import RETURN_SECONDS, Attendance
from server_app.client_models import ClientModels, Outgoing
from server_app.expected import Beside, Expected, Records, shared_metrics
from server_app.grid import OrderedGrid
from server_app.members import Member
from server_app.model_check import ModelCheck
from server_app.replies import Replies
from server_app.sent import Sent as Sent
from server_app.stopping import RunStoppedError
from server_app.strategy import sampled_clients, sampling_from
from server_app.traffic import RoundTraffic, Traffic
from task import derived_seed

UNUSUAL = (
    "Round %d: the update of client %d is %.3g long, %.3g times the round's median, and counts like the others;"
    " 'max-update-norm' and 'max-update-ratio' refuse such updates."
)
OnFailure = Callable[[int, int, str], None]
"""Called with round, partition and reason."""


class Exchange:
    """Sends messages to the clients of a run, and admits those of their replies that are as expected.

    Attributes:
        visits: By partition, the round of its last good reply, of which each client is told its own.
    """

    def __init__(
        self,
        grid: OrderedGrid,
        members: Sequence[Member],
        strategy: Strategy,
        config: RunConfig,
        *,
        method: Method | None = None,
        half: ServerHalf | None = None,
        width: int = 0,
        visit: Mapping[str, str] | None = None,
        on_failure: OnFailure = lambda server_round, partition, reason: None,
        introduce: Callable[[list[int]], list[Member]] | None = None,
        own_clients: bool = False,
        frozen: str = "",
        apart: frozenset[str] = frozenset(),
        client_models: ClientModels | None = None,
    ) -> None:
        """Set up a run's messages.

        Args:
            grid: Reaches the members.
            members: In partition order.
            strategy: Of Flower's interface.
            config: The run's.
            method: The config's.
            half: The method's server half.
            width: The model's number of features.
            visit: What every client is told about the run, see `client_app.client_state`.
            on_failure: Called for each reply that is left out.
            introduce: See `Attendance`.
            own_clients: Whether they are a simulation's, and so may end the run by a damaged image.
            frozen: Hash of the network's weights that do not travel; empty if all do.
            apart: Arrays of the model that each client has of its own, see `keep_apart`.
            client_models: Keeps the model of each usable reply, if the half `keeps_models`.
        """
        self._grid = grid
        self._attendance = Attendance(grid, members, strategy, config.round_timeout, introduce)
        self._strategy = strategy
        self._config = config
        self._half = half or ServerHalf()
        self._expected = Expected(config, method or build_method(config), len(members[0].histogram), self._half, width)
        self._visit = dict(visit or {})
        self._on_failure = on_failure
        self._own_clients = own_clients
        self._frozen, self._apart = frozen, apart
        self._client_models = client_models
        self.visits: dict[int, int] = {}

    def send(self, server_round: int, arrays: ArrayRecord) -> Sent:
        """Send the model to the clients that the strategy samples.

        Raises:
            RunStoppedError: Too few clients are connected.
        """
        self._attendance.gather(server_round)
        started, limit = time.perf_counter(), self._config.round_timeout or None
        deadline = time.monotonic() + limit if limit else math.inf
        traffic = RoundTraffic()
        self._half.before_round(server_round, arrays, partial(self._ask, server_round, traffic.questions))
        with (
            sampling_from(derived_seed(self._config.seed, "sampled clients", server_round)),
            self._attendance.sampling(self._choice(server_round)),
        ):
            messages = list(self._strategy.configure_train(server_round, arrays, self._message_config(), self._grid))
        outgoing = Outgoing(self._client_models, self.visits, self._config.method)
        expected = {message.metadata.dst_node_id: self._address(message, outgoing) for message in messages}
        models = self._model_check(arrays, messages)
        tally = self._tally(server_round, self._members(expected), expected, models)
        tally.shared = shared_metrics(expected.values())
        tally.beside = {message.metadata.dst_node_id: self._beside(message) for message in messages}
        replies = self._grid.send_and_receive(messages, timeout=limit, traffic=traffic.training)
        return Sent(server_round, messages, replies, tally, models, traffic, outgoing, started, deadline)

    def train_replies(self, sent: Sent) -> Iterator[Message]:
        """The usable replies of a round."""
        replies = self._each_train_reply(sent)
        if self._config.max_update_ratio:
            held = list(replies)  # only now is the median known
            for partition, problem in sent.models.too_long().items():
                sent.tally.refuse(partition, problem)
            replies = (reply for reply in held if self._partition_of(reply) in sent.tally.metrics)
        for reply in replies:
            if self._client_models is not None:  # now, since strategies take replies apart
                record = reply.content.array_records[keys.ARRAYS]
                self._client_models.keep(self._partition_of(reply), sent.server_round, record)
            yield reply
        sent.tally.sort(sent.sampled)
        sent.outgoing.let_go()
        if self._config.privacy == "none":  # with privacy, clipping limits them, and the log must not tell their norms
            for partition, norm in sent.models.unusual().items():
                log(WARNING, UNUSUAL, sent.server_round, partition, norm, norm / sent.models.median)

    def evaluate(self, server_round: int, arrays: ArrayRecord, traffic: Traffic) -> dict[str, float]:
        """Federated evaluation, if `fraction-evaluate` is above 0: weighted means over the sampled clients.

        `traffic` counts what it sends.
        """
        with (
            sampling_from(derived_seed(self._config.seed, "evaluating clients", server_round)),
            self._attendance.sampling(),
        ):
            config = self._message_config()
            messages = list(self._strategy.configure_evaluate(server_round, arrays, config, self._grid))
        if not messages:
            return {}
        if self._config.batchnorm == "local":  # each client evaluates with its own, which its last visit left
            for message in messages:
                member = self._attendance.members[message.metadata.dst_node_id]
                message.content = self._of_this_client(message, member)
        members = self._members(message.metadata.dst_node_id for message in messages)
        expected = {node_id: self._expected.in_evaluation(member) for node_id, member in members.items()}
        tally = self._tally(server_round, members, expected)
        limit = self._config.round_timeout or None
        replies = list(tally.good(self._grid.send_and_receive(messages, timeout=limit, traffic=traffic)))
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        return {key: float(value) for key, value in (metrics or {}).items()}  # type: ignore[arg-type]

    def _choice(self, server_round: int) -> Choice | None:
        """Whom the method lets the strategy sample from.

        Raises:
            RunStoppedError: Nobody.
        """
        connected = self._attendance.connected()
        usual = sampled_clients(self._strategy, len(connected))
        choice = self._half.choose(server_round, connected, usual)
        if choice is None:
            return None
        if choice.count < 1 or not set(choice.clients) & set(connected):
            whose = (
                "its choose decides that" if ":" in self._config.method else "its 'method-args' say whom it leaves out"
            )
            raise RunStoppedError(
                f"round {server_round}: 'method' {self._config.method!r} leaves none of {len(connected)} connected"
                f" clients to be sampled; {whose}."
            )
        return choice

    def _ask(self, server_round: int, traffic: Traffic, action: str, arrays: ArrayRecord) -> dict[int, dict[str, Any]]:
        """Send the model to all connected clients, for an action of theirs; metrics of usable replies by partition."""
        content = RecordDict({keys.ARRAYS: arrays, keys.CONFIG: self._message_config()})
        connected = set(self._grid.get_node_ids())
        members = {node_id: one for node_id, one in self._attendance.members.items() if node_id in connected}
        messages = [Message(content, node_id, f"{MessageType.QUERY}.{action}") for node_id in members]
        expected = {node_id: self._expected.in_query(action, member) for node_id, member in members.items()}
        tally = self._tally(server_round, members, expected)
        limit = self._config.round_timeout or None
        for _ in tally.good(self._grid.send_and_receive(messages, timeout=limit, traffic=traffic)):
            pass
        return tally.metrics

    def _each_train_reply(self, sent: Sent) -> Iterator[Message]:
        """Usable replies in the order of the messages, then those of clients that failed and were retried."""
        tally = sent.tally
        yield from tally.good(sent.replies)
        again = [
            Message(message.content, message.metadata.dst_node_id, message.metadata.message_type)
            for message in sent.messages
            if (partition := tally.members[message.metadata.dst_node_id].partition_id) in tally.failures
            and partition not in tally.refused
        ]
        again = self._reachable(again, tally.lost, sent.deadline) if again else []
        left = sent.deadline - time.monotonic()
        if again and left > 0:
            log(INFO, "Retrying %d %s.", len(again), "client" if len(again) == 1 else "clients")
            limit = left if left < math.inf else None
            replies = self._grid.send_and_receive(again, timeout=limit, traffic=sent.traffic.training)
            yield from tally.good(replies, [message.metadata.dst_node_id for message in again])

    def _reachable(self, messages: list[Message], lost: set[int], deadline: float) -> list[Message]:
        """Those whose node is connected, after lost nodes had some time to come back."""
        until = min(deadline, time.monotonic() + RETURN_SECONDS)
        waited_for = {message.metadata.dst_node_id for message in messages} & lost
        while not waited_for <= (connected := set(self._grid.get_node_ids())) and time.monotonic() < until:
            self._grid.pause(1.0)
        return [message for message in messages if message.metadata.dst_node_id in connected]

    def _members(self, node_ids: Iterable[int]) -> dict[int, Member]:
        return {node_id: self._attendance.members[node_id] for node_id in node_ids}

    def _tally(
        self,
        server_round: int,
        members: Mapping[int, Member],
        expected: Mapping[int, Records],
        models: ModelCheck | None = None,
    ) -> Replies:
        on_failure = partial(self._on_failure, server_round)
        return Replies(members, expected, models, on_failure=on_failure, stops_on_damage=self._own_clients)

    def _partition_of(self, reply: Message) -> int:
        return self._attendance.members[reply.metadata.src_node_id].partition_id

    def _model_check(self, arrays: ArrayRecord, messages: Sequence[Message]) -> ModelCheck:
        config = messages[0].content.config_records.get(keys.CONFIG, ConfigRecord()) if messages else ConfigRecord()
        return ModelCheck(
            arrays,
            clipping_norm=float(config.get(keys.CLIPPING_NORM, math.inf)),  # type: ignore[arg-type]
            max_norm=self._config.max_update_norm,
            max_ratio=self._config.max_update_ratio,
            apart=self._apart,
        )

    def _address(self, message: Message, outgoing: Outgoing) -> Records:
        """Add what only this client gets, since strategies share one content; what its reply must hold."""
        member = self._attendance.members[message.metadata.dst_node_id]
        content = self._of_this_client(message, member)
        if told := self._half.tell(member.partition_id):
            content[keys.METHOD] = ConfigRecord({**told})
        if arrays := self._half.tell_arrays(member.partition_id):
            content[keys.METHOD_ARRAYS] = ArrayRecord({name: as_array(value) for name, value in arrays.items()})
        for name, client in self._half.tell_models(member.partition_id).items():
            content[keys.CLIENT_MODEL + name] = outgoing.of(client)
        message.content = content
        return self._expected.in_training(member, told)

    def _of_this_client(self, message: Message, member: Member) -> RecordDict:
        """A message's content, and which visit of this client was its last one."""
        last_round = self.visits.get(member.partition_id, 0)
        visit = ConfigRecord({**self._visit, keys.LAST_ROUND: last_round})
        return RecordDict({**dict(message.content), keys.VISIT: visit})

    def _beside(self, message: Message) -> Beside:
        """The arrays of the method that the reply to an addressed message must hold."""
        told = message.content.config_records.get(keys.METHOD, ConfigRecord())
        return self._expected.beside(cast(Mapping[str, Told], told))

    def _message_config(self) -> ConfigRecord:
        record = ConfigRecord({**self._config.to_flat(), **({keys.FROZEN: self._frozen} if self._frozen else {})})
        if sites := [str(member.node_id) for member in self._attendance.members.values() if member.own_folder]:
            record[keys.SITES] = sites
        return record
