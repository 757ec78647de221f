"""What a run has come to, as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.plan import STREAMS, Fault
from tests.reference.report import Report

LIMITS = {"load": 60.0, "maintenance": 60.0}
"""Seconds within which a run of Dagster that was killed alone must have been noticed, and a load be repeated: twice of
what it may take on a good machine. By target of the fault."""


@dataclass
class Record:
    """One fault as it went."""

    fault: Fault
    at: float
    """Seconds since the run began."""
    struck: bool = False
    recovery: float | None = None
    """Seconds until what was struck was at work again; None when it was not in time."""
    alone: bool = True
    """Whether nothing else was broken or recovering in the meantime."""
    note: str = ""


def summary(records: Sequence[Record], report: Report) -> str:
    """Faults by kind with their recoveries, then what was compared."""
    lines = [f"{'fault':<34}{'struck':>8}{'missed':>8}{'back':>6}{'median s':>10}{'longest s':>11}"]
    for kind in sorted({record.fault.kind for record in records}):
        lines.append(_row(kind, [record for record in records if record.fault.kind == kind]))
    lines.append(_row("all", records))
    crashed = [record for record in records if record.fault.target in STREAMS and not _slept(record)]
    lines.append(_row("streams, other faults beside", [record for record in crashed if not record.alone]))
    lines.append(_row("streams, alone", [record for record in crashed if record.alone]))
    lines += ["", report.text()]
    return "\n".join(lines)


def passed(records: Sequence[Record], report: Report) -> bool:
    """Whether all came back, what has a limit within it, and every result is right."""
    return report.ok and all(_in_time(record) for record in records if record.struck)


def _in_time(record: Record) -> bool:
    """Whether what was struck came back in time. While others are broken beside it nothing but that can be asked."""
    limit = LIMITS.get(record.fault.target, math.inf) if record.alone else math.inf
    return record.recovery is not None and record.recovery <= limit


def _slept(record: Record) -> bool:
    """Suspended or turned into a zombie: the time until that is noticed is not a restart's."""
    return record.fault.kind in ("suspend stream", "zombie")


def _row(name: str, records: Sequence[Record]) -> str:
    struck = [record for record in records if record.struck]
    recoveries = [record.recovery for record in struck if record.recovery is not None]
    middle = f"{statistics.median(recoveries):.1f}" if recoveries else "-"
    longest = f"{max(recoveries):.1f}" if recoveries else "-"
    missed = len(records) - len(struck)
    return f"{name:<34}{len(struck):>8}{missed:>8}{len(recoveries):>6}{middle:>10}{longest:>11}"
