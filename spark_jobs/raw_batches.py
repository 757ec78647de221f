"""The batches in which a broker keeps messages, asked of it in Kafka's own protocol.

Belongs here: which batch an offset is in, and of what kind it is, which librdkafka does not tell. Does not belong here:
reading messages (`offset_ranges`).

It is needed as the CRC of a batch does not cover its first offset. A bit flipped there, and all consumers pass over the
batch without a word, or give its messages other offsets. Where offsets are left out, the batch there must be the end of
a transaction, or of one that was given up; both are covered by the CRC.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_FETCH, _VERSION = 1, 4
_HEADER = struct.Struct(">qiibihi")
"""Of a batch, as far as needed: first offset, length, leader's epoch, format, CRC, attributes, last offset's delta."""
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
_MOST_BYTES = 1_024
"""Asked for: a batch that is larger comes whole all the same, and mostly it is the 78 bytes of a transaction's end."""
_SECONDS = 30.0


class RawBatch(NamedTuple):
    """Which offsets a batch has, and whether it is part of a transaction or the end of one."""

    first: int
    last: int
    transactional: bool


class RawReader:
    """One connection to a broker that asks for neither user nor encryption."""

    def __init__(self, host: str, port: int) -> None:
        """Connect. Raises OSError."""
        self._socket = socket.create_connection((host, port), _SECONDS)
        self._asked = 0

    def close(self) -> None:
        """Let go of the broker."""
        self._socket.close()

    def batch_at(self, topic: str, partition: int, offset: int) -> RawBatch | None:
        """The batch that has an offset, or the next one; None when there is none. Raises OSError, ValueError."""
        name = topic.encode()
        self._asked += 1
        request = b"".join(
            (
                struct.pack(">hhih", _FETCH, _VERSION, self._asked, -1),
                # No replica; answer at once; not only what is committed.
                struct.pack(">iiiibi", -1, 0, 0, _MOST_BYTES, 0, 1),
                struct.pack(">h", len(name)) + name,
                struct.pack(">iiqi", 1, partition, offset, _MOST_BYTES),
            )
        )
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", self._receive(4))
        return _batch(self._receive(length), len(name))

    def _receive(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length > 0:
            part = self._socket.recv(min(length, 2**20))
            if not part:
                raise ConnectionError("the broker has closed the connection")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def _batch(answer: bytes, name_length: int) -> RawBatch | None:
    """What an answer about one partition of one topic says. Raises ValueError when it is an error or none."""
    # Number, throttle, topics; the name; partitions, partition, error, the two ends, transactions that were given up.
    place = struct.calcsize(">iii") + 2 + name_length
    fields = struct.Struct(">iihqqi")
    try:
        _, _, error, _, _, given_up = fields.unpack_from(answer, place)
        place += fields.size + 16 * max(0, given_up)
        (size,) = struct.unpack_from(">i", answer, place)
        if error:
            raise ValueError(f"the broker answers with error {error}")
        if size < _HEADER.size:
            return None
        first, _, _, _, _, attributes, delta = _HEADER.unpack_from(answer, place + 4)
    except struct.error as reason:
        raise ValueError(f"the broker's answer is not understood: {reason}") from reason
    return RawBatch(first, first + delta, bool(attributes & (_TRANSACTIONAL | _CONTROL)))
