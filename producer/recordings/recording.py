"""A recording: a file with a tick on each line, or rows of Binance's archive, of which these are made.

Whether a file is a recording is decided by its first lines: at least one of them must be a tick by the accept rule. In
a recording every line goes out, good or bad; of a file that is none, nothing does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from producer.recordings import binance_archive, text
from producer.recordings.binance_archive import Layout
from producer.recordings.container import Content, opened
from producer.recordings.errors import LineTooLongError, RecordingError
from producer.recordings.foreign import what_it_is
from producer.recordings.location import Location
from producer.recordings.text import Batch
from tickhouse.contract.batch_validation import ValidationResult, read_batch

FIRST_LINES = 10_000
"""Among so many lines of a recording, at the most, there is a tick."""
_FIRST_BYTES = 1 << 24
_ROWS_TO_KNOW = 20


class Recording:
    """What is in one file, which can be read again and again."""

    def __init__(self, place: Location, symbol: str | None = None, *, known: bool = False) -> None:
        """`symbol`: that of rows of Binance's archive, where the file's name does not tell. `known`: the lines are
        known to be those of a recording. Raises RecordingError.
        """
        self.place = place
        self._layout: Layout | None = None
        self._symbol = ""
        self._header = 0
        """Lines before the first that goes out."""
        if known:
            return
        with opened(place) as content:
            self._recognise(content, *_head(place, content), symbol)

    @property
    def form(self) -> str:
        """What the file is, in a few words."""
        if self._layout is None:
            return "JSON lines"
        return f"Binance's archive, {self._layout.name} of {self._symbol}"

    @property
    def header(self) -> int:
        """How many lines of the file stand before the first that goes out."""
        return self._header

    def batches(self) -> Iterator[Batch]:
        """All lines to send, some thousand at a time. Raises RecordingError."""
        with opened(self.place) as content:
            skip = self._header
            for batch in text.batches(self.place, content):
                lines = batch.lines[skip:]
                skip = 0
                if self._layout is not None:
                    layout, symbol = self._layout, self._symbol
                    lines = [binance_archive.tick_of(layout, symbol, line) for line in lines]
                if lines:
                    yield Batch(lines, batch.unfinished)

    def _recognise(
        self, content: Content, lines: list[bytes], too_long: LineTooLongError | None, symbol: str | None
    ) -> None:
        if too_long is not None:
            lines = [*lines, too_long.start]
        if not lines:
            return
        layout = None if lines[0].lstrip().startswith(b"{") else binance_archive.layout_of(lines[:_ROWS_TO_KNOW])
        if layout is not None:
            self._layout = layout
            self._symbol = self._symbol_of(content, symbol)
            self._header = int(binance_archive.is_header(layout, lines[0]))
            if len(lines) == self._header:
                return
            lines = [binance_archive.tick_of(layout, self._symbol, line) for line in lines[self._header :]]
        verdicts = judge(lines)
        if len(verdicts.reasons) == len(lines):
            raise RecordingError(what_it_is(self.place, content, lines, verdicts.reasons))
        if too_long is not None:
            raise too_long
        if layout is None and symbol is not None:
            raise RecordingError(f"each line of {self.place} names its symbol: leave out --symbol {symbol}")

    def _symbol_of(self, content: Content, symbol: str | None) -> str:
        names = (self.place.path.name, Path(content.member or "").name)
        found = symbol or next(filter(None, map(binance_archive.symbol_of, names)), None)
        if found is None:
            raise RecordingError(
                f"{self.place} is of Binance's archive, whose rows do not tell the symbol, and its name is not such as "
                "BTCUSDT-trades-2025-01-01.zip: name the symbol, --symbol BTCUSDT"
            )
        return found.upper()


def judge(lines: list[bytes]) -> ValidationResult:
    """What the accept rule says of lines, however far ahead of now their timestamps are."""
    return read_batch(pa.array(lines, pa.binary()))


def _head(place: Location, content: Content) -> tuple[list[bytes], LineTooLongError | None]:
    """The first lines, and what keeps from reading on soon after them."""
    lines: list[bytes] = []
    size = 0
    try:
        for batch in text.batches(place, content):
            lines += batch.lines
            size += sum(map(len, batch.lines))
            if len(lines) >= FIRST_LINES or size >= _FIRST_BYTES:
                break
    except LineTooLongError as error:
        return lines, error
    return lines, None
