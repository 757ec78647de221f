"""The outermost members of a JSON object, with everything in it held to RFC 8259 to the letter.

Belongs here: what is JSON. Does not belong here: what a message must contain (`validation`).

Python's own reader gives up at a depth of nesting that depends on how deep its caller's calls already are, so that
two jobs could judge one message differently; this one keeps what is open in a list, and keeps nothing of what is
nested. How deep a document may go is limited by its size alone, and its cost is in proportion to that.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_BLANK = r"[ \t\n\r]*+"
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
# Each pattern has the same groups: a member's name, and of its value the string, the number or the opening bracket.
_NAME = rf"{_BLANK}({_STRING}){_BLANK}:"
_NO_NAME = "((?!))?"
_VALUE = rf"{_BLANK}(?:({_STRING})|({_NUMBER})|([{{\[])|true|false|null)"

_DOCUMENT = re.compile(_NO_NAME + _VALUE)
_FIRST = {"{": re.compile(_NAME + _VALUE), "[": _DOCUMENT}
_FURTHER = {"{": re.compile(f"{_BLANK},{_NAME}{_VALUE}"), "[": re.compile(f"{_BLANK},{_NO_NAME}{_VALUE}")}
_CLOSING = {"{": re.compile(_BLANK + r"\}"), "[": re.compile(_BLANK + r"\]")}
_END = re.compile(_BLANK + r"\Z")


class NotJson(ValueError):
    """The text is not one JSON document."""


class Member(NamedTuple):
    """A member of an object: `string` is its value decoded, `number` as written; both are None for any other value."""

    name: str
    string: str | None
    number: str | None


def object_members(text: str) -> list[Member] | None:
    """The members in order, repeated names included, or None if `text` is JSON but not an object.

    Raises NotJson.
    """
    members: list[Member] = []
    match = _DOCUMENT.match(text)
    if match is None:
        raise NotJson("no value")
    opened = [match[4]] if match[4] else []
    is_object = opened == ["{"]
    element = _FIRST
    while opened:
        bracket = opened[-1]
        at = match.end()
        match = element[bracket].match(text, at)
        if match is None:
            match = _CLOSING[bracket].match(text, at)
            if match is None:
                raise NotJson(f"neither an element nor an end at character {at}")
            opened.pop()
            element = _FURTHER
            continue
        name, string, number, opening = match.groups()
        if is_object and len(opened) == 1:
            members.append(Member(_decoded(name), string and _decoded(string), number))
        element = _FURTHER
        if opening:
            opened.append(opening)
            element = _FIRST
    if not _END.match(text, match.end()):
        raise NotJson(f"something follows the document at character {match.end()}")
    return members if is_object else None


def _decoded(literal: str) -> str:
    """What a string in quotes stands for."""
    if "\\" not in literal:
        return literal[1:-1]
    content: str = json.loads(literal)
    return content
