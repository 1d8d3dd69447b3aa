"""Packs the model into messages and unpacks it from replies (`messages.payload`), so that nothing else has to."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, Message, RecordDict

from config.run_config import ConfigError
from messages.arrays import as_array, as_numpy
from messages.keys import METHOD_ARRAYS
from messages.payload import is_packed, pack, unpack


class Packing:
    """Packing with the run's ``payload``."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def outgoing(self, messages: Iterable[Message]) -> list[Message]:
        """The messages with packed models; a model that several messages share is packed once.

        Raises:
            ConfigError: A weight is too large for the half precision of ``payload``.
        """
        packed: dict[int, ArrayRecord] = {}
        return [self._outgoing(message, packed) for message in messages]

    def _outgoing(self, message: Message, packed: dict[int, ArrayRecord]) -> Message:
        content = RecordDict({**message.content.config_records, **message.content.metric_records})
        for name, record in message.content.array_records.items():
            if id(record) not in packed:
                packed[id(record)] = self._pack(record, "fp32" if name == METHOD_ARRAYS else self._kind)
            content[name] = packed[id(record)]
        data = message.metadata
        return Message(content, data.dst_node_id, data.message_type, ttl=data.ttl, group_id=data.group_id)

    def _pack(self, record: ArrayRecord, kind: str) -> ArrayRecord:
        try:
            return pack({name: as_numpy(array) for name, array in record.items()}, kind)
        except OverflowError as error:
            raise ConfigError(
                f"run config: 'payload' is {self._kind!r}, but the global model's {error}; it must be fp32 or bf16."
            ) from None

    def unpack(self, reply: Message, sent: Message) -> None:
        """Replace packed models by complete float32 ones, in place.

        What cannot be unpacked stays packed, and fails the later checks of the reply.

        Args:
            reply: From a client.
            sent: The message that it answers, before packing.
        """
        if reply.has_error():
            return
        for name, record in list(reply.content.array_records.items()):
            if not is_packed(record):
                continue
            try:
                arrays = unpack(record)
            except ValueError:
                continue
            record.clear()  # it is part of reference cycles, see `take_arrays`
            start = sent.content.array_records.get(name)
            if self._kind != "fp32" and start is not None and name != METHOD_ARRAYS:
                for key, value in arrays.items():
                    old = as_numpy(start[key]) if key in start else value
                    if value.dtype == old.dtype == "float32" and value.shape == old.shape:
                        value += old  # the client sent an update
            reply.content[name] = ArrayRecord({key: as_array(arrays.pop(key)) for key in list(arrays)})
