"""Named blobs of bytes as one: how what belongs together travels between processes, and is kept, as one value."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_LENGTHS = struct.Struct("<BI")


def encode_blobs(blobs: Mapping[str, bytes]) -> bytes:
    """Named blobs one after the other, each behind its name and the two lengths. Names have at most 255 bytes."""
    parts = []
    for name, content in blobs.items():
        label = name.encode()
        parts += [_LENGTHS.pack(len(label), len(content)), label, content]
    return b"".join(parts)


def decode_blobs(content: bytes) -> dict[str, bytes]:
    """What `encode_blobs` was given."""
    blobs, place = {}, 0
    while place < len(content):
        label, length = _LENGTHS.unpack_from(content, place)
        begin = place + _LENGTHS.size + label
        blobs[content[begin - label : begin].decode()] = content[begin : begin + length]
        place = begin + length
    return blobs
