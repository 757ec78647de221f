"""What a file is that is no recording, and what to do about it: sentences for those who meant well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from producer.recordings.container import Content
from producer.recordings.errors import EXAMPLE
from producer.recordings.location import Location

_UNPACK = {
    b"\xfd7zXZ\x00": ("xz data", "xz -dc"),
    b"\x04\x22\x4d\x18": ("lz4 data", "lz4 -dc"),
    b"\x5d\x00\x00": ("lzma data", "xz --format=lzma -dc"),
    b"LZIP": ("lzip data", "lzip -dc"),
    b"\x1f\x9d": ("compress data", "uncompress -c"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x -so"),
    b"Rar!": ("a RAR archive", "unrar p -inul"),
}
_DATA = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
_NO_DATA = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a picture, sound or film",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"#!": "a script",
    b"-----BEGIN": "a certificate or key",
}
_BYTE_ORDER_MARKS = {  # the longer before those that they begin with
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_TAR_AT, _TAR = 257, b"ustar"
_SHOWN = 60
_RETURNS = r"sed 's/\r/\n/g'"
_ELEMENTS = "jq -c '.[]'"
_LEAST_TO_TELL = 20
_LINES = f"one tick on each line: {EXAMPLE}"
_RECORDING = f"A recording has {_LINES}"


def what_it_is(place: Location, content: Content, lines: Sequence[bytes], reasons: Mapping[int, str]) -> str:
    """Why a file is no recording, none of its first `lines` being a tick for these `reasons`."""
    head = b"\n".join(lines[:1_000])[:65_536]
    within = f" in {content.kinds[-1]} data" if content.kinds else ""
    what, remedy = _packed(content, head) or _data(head) or _text(content, head, lines, reasons)
    return f"{place} is no recording, so nothing is sent: it looks like {what}{within}. {remedy}"


def _packed(content: Content, head: bytes) -> tuple[str, str] | None:
    """What it is, and what to do, if another program makes text of it."""
    for magic, (what, program) in _UNPACK.items():
        if head.startswith(magic):
            return what, f"Unpack it: {content.command(program)}"
    if head[_TAR_AT:].startswith(_TAR):
        return "a tar archive", f"Take the recording out of it: {content.command('tar -xO -f')}"
    encoding = _encoding(head)
    if encoding:
        return f"text in {encoding}", f"Convert it: {content.command(f'iconv -f {encoding} -t UTF-8')}"
    return None


def _data(head: bytes) -> tuple[str, str] | None:
    for magic, what in _DATA.items():
        if head.startswith(magic):
            return what, f"Export the ticks in it, {_LINES}"
    for magic, what in _NO_DATA.items():
        if head.startswith(magic):
            return what, _RECORDING
    if b"\x00" in head or not _is_text(head):
        return "binary data", _RECORDING
    return None


def _text(content: Content, head: bytes, lines: Sequence[bytes], reasons: Mapping[int, str]) -> tuple[str, str]:
    start = head.lstrip()
    if re.match(rb"(?i)<!doctype html|<html", start):
        return "a web page", "Perhaps a download failed, and this is the answer: open it in a browser"
    if start.startswith(b"<"):
        return "XML", f"Export the ticks in it, {_LINES}"
    if start.startswith(b"["):
        return "a JSON array", f"Make a line of each element: {content.command(_ELEMENTS)}"
    if start.startswith(b"{") and len(lines) == 1 and b"\r{" in head:
        return "lines that end with carriage returns", f"Convert it: {content.command(_RETURNS)}"
    if re.match(rb"\{\s*\n", start):
        return "JSON over several lines", f"Make one line of each object: {content.command('jq -c .')}"
    if not start.startswith(b"{") and b"," in lines[0]:
        columns = lines[0][:_SHOWN].decode("utf-8", "replace").strip()
        return (
            f"CSV that begins with {columns}",
            "Of CSV only Binance's archive of trades, aggregated trades and candlesticks is read; export the ticks in "
            f"this file, {_LINES}",
        )
    first = next((at for at, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return "blank lines", _RECORDING
    return f"text of which no line is a tick (line {first + 1}: {reasons[first]})", _RECORDING


def _encoding(head: bytes) -> str | None:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    # Of ASCII in UTF-16 every other byte is NUL.
    even, odd = head[:2_000:2].count(0), head[1:2_000:2].count(0)
    most = min(len(head), 2_000) // 2 * 0.8
    if len(head) < _LEAST_TO_TELL or max(even, odd) < most or min(even, odd) > most / 8:
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # cut in the middle of a character
    return True
