"""How a process of the product ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process with an exit code, once its threads have ended and everything is written.

    Arrow's own threads may still run while C++ takes its objects apart at the end of a process, which then aborts, with
    SIGABRT for an exit code: on a busy machine one `tickhouse status` in ten did. So that is left out.
    """
    # The steps by which Python itself begins to end (3.11 to 3.14, `Py_FinalizeEx`), which have no public name: it
    # waits for threads, then calls what was registered.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or full: that has been told before
            stream.flush()
    os._exit(code)
