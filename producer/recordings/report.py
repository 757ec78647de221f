"""What there is to say of a recording, before it is sent and after."""

from __future__ import annotations

import datetime

from producer.recordings.count import Numbers

_SYMBOLS_NAMED = 5


def before(file: str, form: str, already: int, found: Numbers, *, lateness_seconds: float, sort: bool) -> list[str]:
    """What to say of `found`, the lines of a recording that are still to be sent; `already` were sent before."""
    if not found.lines:
        return []
    told = [f"{file} ({form}): {_ticks(found)}"]
    if already:
        told.append(f"{_count(already, 'line')} of it {_was(already)} sent before: it goes on behind them")
    if found.first_reject is not None:
        number, reason = found.first_reject
        told.append(_rejects(found.rejects, None if sort else number, reason))
    late_here = found.late - found.late_for_good
    if late_here > 0:
        remedy = "" if sort else ". Sorted by time they would not be: --sort does that"
        told.append(
            f"{_count(late_here, 'tick')} will be late and have no results: more than {lateness_seconds:g} s older "
            f"than one of the same symbol before{remedy}"
        )
    if found.late_for_good:
        told.append(
            f"{_count(found.late_for_good, 'tick')} will be late and have no results in any order: the topic has ticks "
            f"of the same symbol that are more than {lateness_seconds:g} s newer"
        )
    if found.duplicates:
        repeat = "repeats" if found.duplicates == 1 else "repeat"
        told.append(
            f"{_count(found.duplicates, 'tick')} {repeat} the symbol and the millisecond of an earlier one: of "
            "each, the first counts"
        )
    return told


def after(file: str, already: int, sent: Numbers, *, lateness_seconds: float) -> list[str]:
    """What to say of `sent`, the lines that were delivered just now; `already` of the file were before."""
    if not sent.lines:
        if not already:
            return [f"{file} is empty: there is nothing to send"]
        every = "its 1 line" if already == 1 else f"all {already:,} lines"
        return [f"{file} had been sent before, with {every}: nothing is sent"]
    are = "is" if sent.lines == 1 else "are"
    wait = "waits" if sent.waiting == 1 else "wait"
    told = [
        f"{_count(sent.lines, 'message')} of {file} {are} delivered: {sent.final:,} with results; {sent.late:,} late; "
        f"{sent.duplicates:,} duplicates; {sent.rejects:,} rejected; {sent.waiting:,} {wait} for later ticks"
    ]
    if already:
        told.append(f"{_count(already, 'line')} of it had been sent before")
    if sent.waiting:
        told.append(f"A tick has results once there are ticks of its symbol that are {lateness_seconds:g} s later")
    if sent.rejects:
        ask = "SELECT reason, count(*) FROM rejects GROUP BY reason"
        told.append(f'Why lines were rejected: `tickhouse sql "{ask}"`')
    return told


def _ticks(found: Numbers) -> str:
    if not found.ticks:
        return "no ticks"
    assert found.first_ms is not None
    assert found.last_ms is not None
    names = ", ".join(found.symbols[:_SYMBOLS_NAMED]) + (", …" if len(found.symbols) > _SYMBOLS_NAMED else "")
    of = names if len(found.symbols) == 1 else f"{len(found.symbols):,} symbols ({names})"
    return f"{_count(found.ticks, 'tick')} of {of}, from {_utc(found.first_ms)} to {_utc(found.last_ms)}"


def _rejects(count: int, first: int | None, reason: str) -> str:
    """`first`: the number of the first one, None where lines are not in the file's order."""
    if count == 1:
        line = "One line" if first is None else f"Line {first:,}"
        return f"{line} is no tick ({reason}): it goes into the table rejects"
    of_them = "one of them" if first is None else f"the first of them line {first:,}"
    return f"{count:,} lines are no ticks, {of_them} ({reason}): they go into the table rejects"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _utc(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
