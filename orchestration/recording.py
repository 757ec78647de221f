"""What is in a recording, and what there is to say of one that was sent.

Belongs here: reading a file through by the rule that decides what a tick is, and the sentences. Does not belong here:
sending (`replay`), or the rule itself (`tickhouse.contract.validation`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from producer.lines import read_lines
from tickhouse.contract.arrays import Integers
from tickhouse.contract.batch_validation import Verdicts, accept_batch
from tickhouse.contract.validation import END_MS, MAXIMUM_LEAD_MS

EXAMPLE = '{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38Z"}'
"""A line that is a tick."""
_LINES_AT_ONCE = 10_000


class Recording(NamedTuple):
    """What a file holds."""

    lines: int
    rejects: int
    """Lines that are no ticks."""
    first_reject: tuple[int, str] | None
    """The number of the first of these, from 1, and why it is no tick."""
    not_final: int
    """Distinct ticks to which the file has none of their symbol that is later by the lateness."""
    span_ms: int
    """From its first tick to its latest one, in milliseconds."""


def look_through(file: Path, sent_ms: int | None, lateness_ms: int) -> Recording:
    """Read a recording, plain or gzipped. Raises RecordingError.

    `sent_ms`: when it was sent, in milliseconds since the epoch, as a tick must not be far ahead of that; None when its
    timestamps were shifted, so that this cannot be told of a line.
    """
    lines, rejects, first_reject = 0, 0, None
    recent: dict[str, Integers] = {}
    first_ms = latest_ms = None
    for values in _batches(file):
        times = np.full(len(values), END_MS if sent_ms is None else sent_ms)
        verdicts = accept_batch(pa.array(values, pa.binary()), times)
        if verdicts.reasons and first_reject is None:
            at = min(verdicts.reasons)
            first_reject = (lines + at + 1, verdicts.reasons[at])
        lines += len(values)
        rejects += len(verdicts.reasons)
        ticks = verdicts.timestamps[verdicts.of_symbol >= 0]
        if len(ticks):
            first_ms = int(ticks[0]) if first_ms is None else first_ms
            latest_ms = max(int(ticks.max()), first_ms if latest_ms is None else latest_ms)
        _keep_recent(recent, verdicts, lateness_ms)
    span_ms = 0 if first_ms is None or latest_ms is None else latest_ms - first_ms
    return Recording(lines, rejects, first_reject, sum(map(len, recent.values())), span_ms)


def _batches(file: Path) -> Iterator[list[bytes]]:
    lines = read_lines(file)
    while batch := list(itertools.islice(lines, _LINES_AT_ONCE)):
        yield batch


def _keep_recent(recent: dict[str, Integers], verdicts: Verdicts, lateness_ms: int) -> None:
    """Of each symbol, the distinct timestamps that none so far is later than by the lateness."""
    for symbol, positions in verdicts.ticks_by_symbol():
        times = np.union1d(recent.get(symbol, positions[:0]), verdicts.timestamps[positions])
        recent[symbol] = times[times > times[-1] - lateness_ms]


def sentences(
    file: Path, delivered: int, found: Recording, *, lateness_seconds: float, shifted: bool, speed: str
) -> list[str]:
    """What there is to say of a recording of which `delivered` lines were sent just now, and the others before."""
    told = [_delivery(file, delivered, found.lines)]
    if found.first_reject is not None:
        told.append(_rejects(found.rejects, *found.first_reject))
    if shifted and found.span_ms * (1 - _share(speed)) > MAXIMUM_LEAD_MS:
        told.append(
            f"At speed {speed} its shifted timestamps run ahead of the clock: ticks that were more than "
            f"{MAXIMUM_LEAD_MS // 1_000} s ahead when sent go into the table rejects, too; speed 1 keeps them together"
        )
    if found.not_final:
        ticks = "The last tick waits" if found.not_final == 1 else f"The last {found.not_final:,} ticks wait"
        told.append(
            f"{ticks} for later ones: a tick has results once there are ticks of its symbol that are "
            f"{lateness_seconds:g} s later"
        )
    return told


def _delivery(file: Path, delivered: int, lines: int) -> str:
    if not lines:
        return f"{file} is empty: there is nothing to send"
    already = lines - delivered
    if not delivered:
        every = "its 1 line" if lines == 1 else f"all {lines:,} lines"
        return f"{file} had been sent before, with {every}: nothing is sent"
    messages = "1 message" if delivered == 1 else f"{delivered:,} messages"
    sent = f"{messages} of {file} {'is' if delivered == 1 else 'are'} delivered"
    return f"{sent}; {already:,} of its lines had been sent before" if already else sent


def _rejects(count: int, first: int, reason: str) -> str:
    if count == 1:
        told = f"Line {first:,} is no tick ({reason}): it goes"
    else:
        told = f"{count:,} lines are no ticks, the first of them line {first:,} ({reason}): they go"
    ask = "SELECT reason, count(*) FROM rejects GROUP BY reason"
    return f'{told} into the table rejects, with the reason, as `tickhouse sql "{ask}"` shows'


def _share(speed: str) -> float:
    """Of the time between two ticks, what passes between sending them."""
    return 0.0 if speed == "max" else min(1.0, 1 / float(speed))
