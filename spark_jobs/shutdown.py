"""A request to stop that a signal handler may make.

`threading.Event` takes a lock: set by a handler that interrupts the very thread that is about to wait for it, it waits
for itself for ever.
"""

from __future__ import annotations

import time

_LOOK_SECONDS = 0.05


class StopRequest:
    """Not made until `set` is called; then made for ever."""

    def __init__(self) -> None:
        self._made = False

    def set(self) -> None:
        """Make the request."""
        self._made = True

    def is_set(self) -> bool:
        """Whether it has been made."""
        return self._made

    def wait(self, seconds: float) -> bool:
        """Wait until it is made, at most so long; returns whether it has been made."""
        deadline = time.monotonic() + seconds
        while not self._made and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_LOOK_SECONDS, left))
        return self._made
