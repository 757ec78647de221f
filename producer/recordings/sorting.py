"""A recording put in the order of its ticks' timestamps, in bounded memory.

Sorted portions go to disk and are merged from there. Ticks of one millisecond stay in their order, and a line that is
no tick stays behind the tick before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from producer.recordings.errors import RecordingError
from producer.recordings.location import Location
from producer.recordings.recording import Recording, judge

_LINES_AT_ONCE = 200_000
_BYTES_AT_ONCE = 1 << 25
_FILES_AT_ONCE = 64

_Timed = tuple[int, bytes]


def in_order(recording: Recording, folder: Path) -> Recording:
    """The sorted recording, kept in an empty `folder`, which needs room for all lines twice. Raises RecordingError."""
    try:
        portions: list[Path] = []
        for number, portion in enumerate(_portions(recording)):
            portions.append(_write(folder / f"portion-{number}", iter(portion)))
            if len(portions) == _FILES_AT_ONCE:
                portions = [_merged(portions, folder / f"merged-{number}")]
        result = folder / f"sorted-{recording.place.path.name}"
        with result.open("wb") as file:
            file.writelines(line + b"\n" for _, line in _merge(portions))
        for path in portions:
            path.unlink()
    except OSError as error:
        raise RecordingError(f"{recording.place} cannot be sorted: {error}") from error
    return Recording(Location(result, recording.place.name), known=True)


def _portions(recording: Recording) -> Iterator[list[_Timed]]:
    portion: list[_Timed] = []
    size = last = 0
    for lines, _ in recording.batches():
        verdicts = judge(lines)
        tick = np.maximum.accumulate(np.where(verdicts.of_symbol >= 0, np.arange(len(lines)), -1))
        timed = np.where(tick >= 0, verdicts.timestamps[tick], last).tolist()
        last = timed[-1]
        portion += zip(timed, lines, strict=True)
        size += sum(map(len, lines))
        if len(portion) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield _sorted(portion)
            portion, size = [], 0
    if portion:
        yield _sorted(portion)


def _sorted(portion: list[_Timed]) -> list[_Timed]:
    return sorted(portion, key=lambda timed: timed[0])


def _merged(portions: list[Path], result: Path) -> Path:
    _write(result, _merge(portions))
    for portion in portions:
        portion.unlink()
    return result


def _merge(portions: list[Path]) -> Iterator[_Timed]:
    """All lines of sorted files, in order; of equal times those of earlier files first."""
    return heapq.merge(*map(_read, portions), key=lambda timed: timed[0])


def _write(path: Path, lines: Iterator[_Timed]) -> Path:
    with path.open("wb") as file:
        file.writelines(b"%d %b\n" % timed for timed in lines)
    return path


def _read(path: Path) -> Iterator[_Timed]:
    with path.open("rb") as file:
        for line in file:
            time, _, rest = line.partition(b" ")
            yield int(time), rest[:-1]
