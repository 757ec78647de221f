"""The lines of a recording on their way out: key, partition, and the shift to another time.

What is a tick is decided by the accept rule alone.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Callable

from producer.ticks import timestamp_text
from tickhouse.contract.strict_json import NotJson, object_members

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_FRACTION = re.compile(r"\.[0-9]{3}([0-9]{1,3})")
# How every well-behaved producer writes a tick; all else takes the thorough path to the same answer.
_CANONICAL = re.compile(r'\{"symbol":"[^"\\]*","price":[0-9.]+,"timestamp":("[^"\\]*")\}')


def key_of(line: bytes) -> bytes | None:
    """The key of any line: its symbol, as far as the rule's own reader finds one, however bad the line is otherwise."""
    try:
        members = object_members(line.decode("utf-8")) or []
    except (UnicodeDecodeError, NotJson):
        return None
    symbols = [member.string for member in members if member.name == "symbol"]
    try:
        return symbols[-1].encode() if symbols and symbols[-1] is not None else None
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return None


def partition_of(line: bytes, key: bytes | None, partitions: int, key_partition: Callable[[bytes], int]) -> int:
    """The partition of a line: that of its key, else one that depends on nothing but the line."""
    return zlib.crc32(line) % partitions if key is None else key_partition(key)


def shift_tick(line: bytes, timestamp_ms: int, shift_us: int) -> bytes:
    """A tick with its timestamp, known in milliseconds, moved by `shift_us`, and all else as it was.

    A time that cannot be written then stays as it is.
    """
    text = line.decode("utf-8")
    begin, end = _timestamp_span(text)
    fraction = _FRACTION.search(text, begin, end)
    microseconds = int(fraction[1].ljust(3, "0")) if fraction else 0
    try:
        shifted = timestamp_text((timestamp_ms * 1_000 + microseconds + shift_us) * 1_000)
    except OverflowError:
        return line
    return f'{text[:begin]}"{shifted}"{text[end:]}'.encode()


def _timestamp_span(text: str) -> tuple[int, int]:
    """Where the value of a tick's timestamp stands, quotes and all; its name may be written in many ways."""
    match = _CANONICAL.fullmatch(text)
    if match is not None:
        return match.span(1)
    strings = list(_STRING.finditer(text))
    for name, value in itertools.pairwise(strings):
        begin, end = value.span()
        if text[name.end() : begin].strip(" \t\r\n") == ":" and json.loads(name[0]) == "timestamp":
            # One of a nested object is no member of the tick: changed, it changes nothing that the rule reads.
            changed = object_members(f'{text[:begin]}"?"{text[end:]}') or ()
            if any(member.name == "timestamp" and member.string == "?" for member in changed):
                return begin, end
    raise AssertionError("a tick has a timestamp")
