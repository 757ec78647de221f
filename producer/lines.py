"""The lines of a recording: reading them, finding key, partition and time, shifting the time.

Belongs here: bytes in, bytes out. Does not belong here: pacing (`schedule`), what is already on the topic
(`resume`), sending (`publish`). Whether a line is a good tick is not decided here: bad ones are replayed too.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard, cast

from producer.ticks import timestamp_text

LONGEST_LINE = 900_000
"""Bytes; a broker takes messages of about 1 MB unless it is told otherwise."""

_GZIP_MAGIC = b"\x1f\x8b"
# What every well-behaved producer writes; all else takes the thorough path to the same answer.
_CANONICAL = re.compile(
    rb'\{"symbol":"([A-Za-z0-9._-]{1,32})","price":[0-9.]{1,20},'
    rb'"timestamp":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9.]{2,12}(?:Z|\+00:00))"\}'
)
_TIMESTAMP_MEMBER = re.compile(rb'"timestamp"[ \t\r]*:[ \t\r]*"([^"\\]*)"')
_FRACTION = re.compile(r"\.([0-9]{1,9})")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class RecordingError(Exception):
    """The recording cannot be replayed; the text says why and what to do."""


class Recording(NamedTuple):
    """What a first pass over the file found: `digest` of its content (unzipped, hexadecimal), number of `lines`."""

    digest: str
    lines: int


class Line(NamedTuple):
    """What is in a line, as far as there is any: the `symbol` as a key, the time in microseconds since the epoch."""

    key: bytes | None
    time: int | None


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, plain or gzipped, without their newlines.

    Lines end at a newline byte and nowhere else, and are not touched otherwise; an empty line is an empty line, and
    a newline at the very end does not begin another. Raises RecordingError.
    """
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(LONGEST_LINE + 2):
                number += 1
                line = line[:-1] if line.endswith(b"\n") else line
                if len(line) > LONGEST_LINE:
                    raise RecordingError(
                        f"line {number} of {path} is longer than {LONGEST_LINE} bytes: no broker takes it"
                    )
                yield line
    except FileNotFoundError:
        raise RecordingError(f"there is no file {path} to replay") from None
    except (OSError, EOFError, zlib.error) as error:
        raise RecordingError(f"{path} cannot be read after line {number}: {error}; is it complete?") from error


def survey(path: Path) -> Recording:
    """Read the whole file once: its identity, and that all of it can be read. Raises RecordingError."""
    digest = ContentDigest()
    for line in read_lines(path):
        digest.add(line)
    return Recording(digest.text(), digest.lines)


class ContentDigest:
    """Identifies a sequence of lines, whatever the file was compressed with."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines = 0

    def add(self, line: bytes) -> None:
        self._hash.update(line + b"\n")
        self.lines += 1

    def text(self) -> str:
        return self._hash.hexdigest()[:32]


def inspect_line(line: bytes) -> Line:
    """Find symbol and time in a line, leniently: a line that is not what it should be has neither."""
    match = _CANONICAL.fullmatch(line)
    if match is not None:
        return Line(match.group(1), parse_time(match.group(2).decode()))
    document = _parse(line)
    if document is None:
        return Line(None, None)
    symbol, time = document.get("symbol"), document.get("timestamp")
    return Line(_encode(symbol), parse_time(time) if _is_string(time) else None)


def partition_of(line: bytes, key: bytes | None, partitions: int, key_partition: Callable[[bytes], int]) -> int:
    """The partition of a line: that of its key, else one that depends on nothing but the line."""
    return zlib.crc32(line) % partitions if key is None else key_partition(key)


def parse_time(text: str) -> int | None:
    """Microseconds since the epoch of an ISO 8601 time, or None; without an offset it counts as UTC."""
    try:
        # Python takes six decimals; what is finer is cut off.
        moment = datetime.datetime.fromisoformat(_FRACTION.sub(lambda match: "." + match.group(1)[:6], text))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def shift_line(line: bytes, shift: int) -> bytes:
    """The line with its timestamp moved by `shift` microseconds and all else as it was.

    A line in which no timestamp, or more than one, is found comes back unchanged.
    """
    members = _TIMESTAMP_MEMBER.findall(line)
    document = _parse(line)
    if document is None or len(members) != 1 or document.get("timestamp") != members[0].decode("utf-8", "replace"):
        return line
    time = inspect_line(line).time
    if time is None:
        return line
    try:
        text = timestamp_text((time + shift) * 1_000)
    except OverflowError:
        return line
    match = _TIMESTAMP_MEMBER.search(line)
    assert match is not None
    return line[: match.start(1)] + text.encode() + line[match.end(1) :]


class _Number(str):
    """The text of a JSON number: not a string, and of any length."""


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line.decode("utf-8"), parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _is_string(content: object) -> TypeGuard[str]:
    return isinstance(content, str) and not isinstance(content, _Number)


def _encode(symbol: object) -> bytes | None:
    try:
        return symbol.encode() if _is_string(symbol) else None
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return None


def _open(path: Path) -> IO[bytes]:
    file = path.open("rb")
    magic = file.read(2)
    file.seek(0)
    return cast(IO[bytes], gzip.open(file)) if magic == _GZIP_MAGIC else file
