"""Counting what is missing, there twice, not owed or wrong in one output, and the table of all verdicts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from tests.reference.acceptance import format_timestamp

KINDS = ("missing", "duplicate", "unexpected", "wrong")
_SHOWN = 3

_Owed = TypeVar("_Owed")
_Name = TypeVar("_Name", bound=Hashable)


class Found(NamedTuple):
    """One thing found: where, whose result it is (None when it cannot be told), its value, and a fault of form."""

    where: str
    name: Any
    value: Any
    fault: str | None = None


@dataclass
class Tally:
    """The verdict on one output."""

    output: str
    expected: int
    found: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    faults: list[str] = field(default_factory=list)
    """Of the output as a whole: a schema, an index, its being missing."""

    def note(self, kind: str, example: str) -> None:
        """Counts one fault and keeps the first few as examples."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < _SHOWN:
            self.examples[kind].append(example)

    @property
    def ok(self) -> bool:
        return not self.faults and not any(self.counts.values())


@dataclass
class Report:
    """The verdict on a system."""

    tallies: list[Tally]
    summary: list[str]
    faults: list[str] = field(default_factory=list)
    """Of the reading as a whole; any of them fails the comparison."""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.tallies) and not self.faults and all(tally.ok for tally in self.tallies)

    def tally(self, output: str) -> Tally:
        """The verdict on one output by its name in the table, such as `delta prices`."""
        return next(tally for tally in self.tallies if tally.output == output)

    def text(self) -> str:
        """The table, examples of what is wrong, and the verdict."""
        head = f"{'output':<34}" + "".join(f"{name:>11}" for name in ("expected", "found", *KINDS))
        lines = [*self.summary, "", head]
        for tally in self.tallies:
            counts = (tally.expected, tally.found, *tally.counts.values())
            mark = "" if tally.ok else "  <-"
            lines.append(f"{tally.output:<34}" + "".join(f"{count:>11}" for count in counts) + mark)
        for tally in self.tallies:
            lines.extend(f"{tally.output}: {fault}" for fault in tally.faults)
            for kind, examples in tally.examples.items():
                lines.extend(f"{tally.output}: {kind}: {example}" for example in examples)
        lines.extend(f"fault: {fault}" for fault in self.faults)
        lines.extend(f"note: {note}" for note in self.notes)
        lines.append("everything is right" if self.ok else "NOT right")
        return "\n".join(lines)


def tally(
    output: str, owed: Mapping[_Name, _Owed], found: Iterable[Found], judge: Callable[[_Name, _Owed, Any], str | None]
) -> Tally:
    """Counts what is missing, there twice, not owed, or wrong as `judge(name, owed, value)` says (None = right)."""
    verdict = Tally(output, len(owed))
    seen: set[_Name] = set()
    for one in found:
        verdict.found += 1
        if one.fault is not None:
            verdict.note("wrong", f"{one.where}: {one.fault}")
            if one.name in owed:
                # It is there, if not in the right form: once is enough to report it.
                seen.add(one.name)
        elif one.name in seen:
            verdict.note("duplicate", f"{one.where}: {shown(one.name)} again")
        elif one.name not in owed:
            verdict.note("unexpected", f"{one.where}: {shown(one.name)} is not owed: {brief(one.value)}")
            seen.add(one.name)
        else:
            seen.add(one.name)
            fault = judge(one.name, owed[one.name], one.value)
            if fault is not None:
                verdict.note("wrong", f"{one.where}: {shown(one.name)}: {fault}")
    for name in owed:
        if name not in seen:
            verdict.note("missing", shown(name))
    return verdict


def shown(name: object) -> str:
    """A tick's identity or Kafka coordinates as people read them."""
    match name:
        case (str(symbol), int(moment)):
            return f"{symbol}|{format_timestamp(moment)}"
        case (int(partition), int(offset)):
            return f"partition {partition} offset {offset}"
    return str(name)


def brief(value: object) -> str:
    """A value for an example, cut off when long."""
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"
