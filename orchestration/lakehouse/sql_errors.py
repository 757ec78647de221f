"""What is wrong with a query, said to the one who wrote it.

Pure: no I/O.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_PARTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|;", re.DOTALL)
"""Texts, names in quotes and comments, in which a semicolon is none; and semicolons."""
_PREFIX = re.compile(
    r"(?:(?:Error during planning|Schema error|Execution error|SQL error|Arrow error|External error|Cast error"
    r"|This feature is not implemented): )+"
)
_NO_TABLE = re.compile(r"table 'datafusion\.public\.(.*)' not found", re.DOTALL)
_PARSER = re.compile(r'ParserError\("(.*) at Line: ([0-9]+), Column: ([0-9]+)"\)', re.DOTALL)
_DOT = re.compile(r"(\w+(?:\.\w+)?\[[^\]]*\])\.(\w+)")
_NO_FIELD = re.compile(r'No field named "(.*?)"')


def single(text: str) -> str | None:
    """The one query of a text, without the semicolon and the comments behind it; None when there are several."""
    for part in _PARTS.finditer(text):
        if part[0] == ";":
            rest = _PARTS.sub(lambda found: "" if found[0][:2] in ("--", "/*", ";") else found[0], text[part.end() :])
            return None if rest.strip() else text[: part.start()].strip()
    return text.strip()


def explain(said: str, query: str, tables: Sequence[str], known: Sequence[str]) -> str:
    """One sentence for what the engine has said of a query.

    The engine was given the query from its second line on. `tables`: those that there are; `known`: these and those
    that may come to be.
    """
    said = _PREFIX.sub("", said.rpartition("caused by\n")[2]).strip()
    if match := _NO_TABLE.search(said):
        near = difflib.get_close_matches(match[1].lower(), known, 1)
        meant = f": did you mean {near[0]}?" if near else ""
        return f"there is no table {match[1]}{meant} (tables: {', '.join(tables)})"
    if match := _PARSER.search(said):
        return _syntax(match[1], int(match[2]) - 1, int(match[3]), query)
    if "Dot access not supported" in said:
        match = _DOT.search(query)
        entry, field = match.groups() if match else ("z_scores[1]", "zscore_price")
        return f"a part of a list's entry has its name in brackets: write {entry}['{field}']"
    if "Cannot access field" in said and "type List(" in said:
        return "a list has its entry's number first, from 1: write z_scores[1]['zscore_price'], for example"
    if (match := _NO_FIELD.search(said)) and f'"{match[1]}"' in query:
        return f"{said} Text is written in single quotes: '{match[1]}'."
    return said


def _syntax(complaint: str, line: int, column: int, query: str) -> str:
    if line > query.count("\n") + 1:
        return "the query ends too early, or its brackets do not match"
    # A closing bracket is what was put behind the query: where that is expected, the query might have ended.
    complaint = complaint.replace('\\"', '"').replace("Expected: ), found: ", "unexpected: ").replace("Exp", "exp")
    return f"the query is not understood at line {line}, column {column} ({complaint}); the dialect is DataFusion's"
