"""Characters that a path may not have, because a program that is told the path takes it for another one."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestration.settings import OrchestrationSettings

_LONGEST = 3_500
"""Of the 4,096 bytes that the system allows; the rest is for what is made in a home."""
_NAMES = {",": "a comma", ":": "a colon"}


class _Limit(NamedTuple):
    pattern: str
    program: str


_KAFKA = _Limit(",", "Kafka takes it for the end of a path")
_DELTA = _Limit(
    r"[#?\[\]\\^|]|%[0-9A-Fa-f]{2}", "the library that writes the Delta tables takes the path for an address"
)
_ROCKSDB = _Limit("[\U00010000-\U0010ffff]", "RocksDB, which keeps the state of streams, takes it for others")
"""Its interface to Java writes such a character as two: it would work in a folder beside the home."""
_JAVA = _Limit(":", "Java takes it for the end of a path")
_DAGSTER = _Limit("%", "Dagster's database tool takes it for a variable")


def unusable(settings: OrchestrationSettings) -> Iterator[str]:
    """What is wrong with each path, in a sentence that says what to do."""
    yield from _told("home", settings.home, "--home or TICKHOUSE_HOME", _KAFKA, _DELTA, _ROCKSDB)
    for name, uri in (("lakehouse", settings.lakehouse), ("checkpoints", settings.checkpoints)):
        folder = Path(uri)
        if folder.is_absolute() and not folder.is_relative_to(settings.home):
            yield from _told(f"folder of {name}", folder, f"TICKHOUSE_{name.upper()}", _DELTA)
    yield from _told("folder of tools", settings.tools, "TICKHOUSE_TOOLS", _JAVA)
    if not settings.jars.is_relative_to(settings.tools):
        yield from _told("folder of JARs", settings.jars, "TICKHOUSE_JARS", _JAVA)
    yield from _told("Python environment", Path(sys.prefix), "make setup in another folder", _JAVA, _DAGSTER)


def _told(what: str, path: Path, remedy: str, *limits: _Limit) -> Iterator[str]:
    text = str(path)
    shown = ascii(text) if any(map(_is_no_text, text)) else text
    if any(map(_is_no_text, text)):
        yield f"The path of the {what}, {shown}, has a control character or is not UTF-8: choose another with {remedy}."
    elif len(os.fsencode(path)) > _LONGEST:
        yield f"The path of the {what} is longer than {_LONGEST:,} bytes: choose a shorter one with {remedy}."
    else:
        for limit in limits:
            if found := re.search(limit.pattern, text):
                name = _NAMES.get(found[0], found[0])
                yield (
                    f"The path of the {what}, {shown}, has {name} in it, and {limit.program}: choose another with "
                    f"{remedy}."
                )


def _is_no_text(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")
