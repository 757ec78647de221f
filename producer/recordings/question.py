"""What a replay says of its recording before it sends anything, and what it may be told to do.

With the option, the producer writes `Found` as a line to its standard output and reads the answer from its standard
input.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel

ASK_OPTION = "--ask"


class Answer(StrEnum):
    """What is to be done with the recording."""

    send = "send"
    sort = "sort"
    stop = "stop"


class Found(BaseModel):
    """What is in the recording."""

    sentences: list[str]
    late: int
    """Ticks that will have no results, as newer ones of their symbol come before them."""
    late_unsorted: int
    """Those of them that would have results if the recording were sorted."""
