"""Lines of content, cut at newline bytes and nowhere else.

A byte order mark at the very beginning is not part of the first line. All else stays as it is: an empty line is an
empty line, a carriage return belongs to its line, and a newline at the very end does not begin another line.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from producer.recordings.container import Content, Unreadable
from producer.recordings.errors import LineTooLongError, RecordingError
from producer.recordings.location import Location

LONGEST_LINE = 900_000
"""Bytes; a broker takes messages of about 1 MB unless it is told otherwise."""

_CHUNK_BYTES = 1 << 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Batch(NamedTuple):
    """Consecutive lines without their newlines; `unfinished` when the last one has none, being at the end."""

    lines: list[bytes]
    unfinished: bool


def batches(place: Location, content: Content) -> Iterator[Batch]:
    """All lines, some thousand at a time. Raises RecordingError."""
    number = 0
    rest = b""
    begun = False
    while True:
        try:
            chunk = content.read(_CHUNK_BYTES)
        except Unreadable as error:
            raise RecordingError(_unreadable(place, content, number, error)) from error
        if not begun:
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
            begun = True
        *lines, rest = (rest + chunk).split(b"\n")
        if max(map(len, lines), default=0) > LONGEST_LINE or len(rest) > LONGEST_LINE:
            before = list(itertools.takewhile(lambda line: len(line) <= LONGEST_LINE, lines))
            if before:
                yield Batch(before, False)
            raise LineTooLongError(
                f"line {number + len(before) + 1:,} of {place} is longer than {LONGEST_LINE:,} bytes: no broker takes "
                "it",
                [*lines, rest][len(before)][:_CHUNK_BYTES],
            )
        number += len(lines)
        if lines:
            yield Batch(lines, False)
        if not chunk:
            break
    if rest:
        yield Batch([rest], True)


def _unreadable(place: Location, content: Content, number: int, error: Unreadable) -> str:
    told = f"{place} cannot be read to its end: {error}; {number:,} whole lines can be read. Fetch it again"
    return f"{told}, or send what is there: {content.command(f'head -n {number}')}" if number else told
