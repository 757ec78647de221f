"""The outermost members of a JSON object, with everything in it held to RFC 8259 to the letter.

Python's own reader gives up at a depth of nesting that depends on how deep its caller's calls already are, so that
two jobs could judge one message differently; this one keeps what is open in a list, and keeps nothing of what is
nested. How deep a document may go is limited by its size alone, and its cost is in proportion to that, in memory, too:
no pattern repeats a group, as each repetition is remembered until the match ends.
"""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented nowhere, there in every version
from typing import NamedTuple

_BLANK = r"[ \t\n\r]*"
_STRING = r'"([^"\\\x00-\x1f]*)"'
"""Without escapes: those that have some are left to `scanstring`."""
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
# Each pattern of an element has the same groups: a member's name, and of its value the string, the number or the
# opening bracket.
_NO_NAME = "((?!))?"
_VALUE = rf"(?:{_STRING}|({_NUMBER})|([{{\[])|true|false|null)"
_NAMES = {"{": rf"{_STRING}{_BLANK}:{_BLANK}", "[": _NO_NAME}
_FIRST = {bracket: re.compile(_BLANK + name + _VALUE) for bracket, name in _NAMES.items()}
_FURTHER = {bracket: re.compile(f"{_BLANK},{_BLANK}{name}{_VALUE}") for bracket, name in _NAMES.items()}
_CLOSING = {"{": re.compile(_BLANK + r"\}"), "[": re.compile(_BLANK + r"\]")}
_BEFORE_FIRST, _BEFORE_FURTHER = re.compile(_BLANK), re.compile(f"{_BLANK},{_BLANK}")
_COLON = re.compile(f"{_BLANK}:{_BLANK}")
_BARE_VALUE = re.compile(_NO_NAME + _VALUE)
_END = re.compile(_BLANK + r"\Z")


class NotJson(ValueError):
    """The text is not one JSON document."""


class Member(NamedTuple):
    """A member of an object: `string` is its value decoded, `number` as written; both are None for any other value."""

    name: str
    string: str | None
    number: str | None


_Element = tuple[str | None, str | None, str | None, str | None, int]
"""Of an element: the groups of its pattern, and where it ends."""


def object_members(text: str) -> list[Member] | None:
    """The members in order, repeated names included, or None if `text` is JSON but not an object.

    Raises NotJson.
    """
    members: list[Member] = []
    _, _, _, opening, at = _element(text, 0, "", first=True)
    opened = [opening] if opening else []
    is_object = opened == ["{"]
    first = True
    while opened:
        bracket = opened[-1]
        match = (_FIRST if first else _FURTHER)[bracket].match(text, at)
        if match is not None:
            name, string, number, opening = match.groups()
            at = match.end()
        elif (closing := _CLOSING[bracket].match(text, at)) is not None:
            opened.pop()
            at, first = closing.end(), False
            continue
        else:
            name, string, number, opening, at = _element(text, at, bracket, first)
        if is_object and len(opened) == 1:
            members.append(Member(name or "", string, number))
        first = bool(opening)
        if opening:
            opened.append(opening)
    if not _END.match(text, at):
        raise NotJson(f"something follows the document at character {at}")
    return members if is_object else None


def _element(text: str, at: int, bracket: str, first: bool) -> _Element:
    """The element at `at` whose name or string may have escapes, with the comma before it. Raises NotJson."""
    before = (_BEFORE_FIRST if first else _BEFORE_FURTHER).match(text, at)
    if before is None:
        raise NotJson(f"neither an element nor an end at character {at}")
    at, name = before.end(), None
    if bracket == "{":
        name, at = _string(text, at)
        colon = _COLON.match(text, at)
        if colon is None:
            raise NotJson(f"no colon at character {at}")
        at = colon.end()
    match = _BARE_VALUE.match(text, at)
    if match is not None:
        _, string, number, opening = match.groups()
        return name, string, number, opening, match.end()
    string, at = _string(text, at)
    return name, string, None, None, at


def _string(text: str, at: int) -> tuple[str, int]:
    """What the string at `at` stands for, and where it ends. Raises NotJson."""
    if not text.startswith('"', at):
        raise NotJson(f"no value at character {at}")
    try:
        decoded: tuple[str, int] = scanstring(text, at + 1, True)
    except ValueError as error:
        raise NotJson(str(error)) from None
    return decoded
