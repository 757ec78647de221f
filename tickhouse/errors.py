"""What no restart can help."""

from __future__ import annotations

import re

EXIT_CODE = 2
"""The exit code of a job that ended with a `NonRetryableError`, or whose settings are wrong."""


_DAMAGE = re.compile(r"\b(?:Table|Topic)Damaged: (.*)")


class NonRetryableError(Exception):
    """The job cannot go on until somebody has done what the message says."""


class Damaged(NonRetryableError):
    """What is on disk is not what was written; the text says what and where, and what to do."""


def damage_in(text: str) -> Damaged | None:
    """The damage that an error's text is about, if it is: what a worker raises comes as a text."""
    found = _DAMAGE.search(text)
    return Damaged(found[1].strip()) if found else None
