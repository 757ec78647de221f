"""The garbage collector in processes that hold messages by the ten thousand."""

from __future__ import annotations

import gc

_OBJECTS = 100_000
"""So many more objects than before have it look among the youngest: more than come at a time."""


def tune_gc() -> None:
    """Have the collector leave out all that is there, and look at the rest when that has become much.

    As it is by itself it looks whenever 700 objects have been added, again and again among the same messages, none of
    which is ever part of a cycle: a third of the time that reading them takes.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)
