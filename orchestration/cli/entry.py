"""The first step of the `tickhouse` command: makes its own process independent of what it inherits.

Until its variables, umask and signals are settled it imports nothing but Python's own modules, as others could be
somebody else's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

_HARMLESS = {
    "PYTHONCOERCECLOCALE",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER",
    "PYTHONHASHSEED",
    "PYTHONIOENCODING",
    "PYTHONNOUSERSITE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
}
"""Of Python's variables those that change neither which code is run nor what it does."""


def misleading(names: Iterable[str], kept: str) -> list[str]:
    """Which of these variables could have Python run other code than the product's; `kept`: what somebody wants so."""
    wanted = kept.replace(",", " ").split()
    return sorted(name for name in names if name.startswith("PYTHON") and name not in {*_HARMLESS, *wanted})


def main() -> None:
    """Run the command, in a Python that the caller's environment says nothing to."""
    if not sys.flags.isolated and misleading(os.environ, os.environ.get("TICKHOUSE_KEEP_ENVIRONMENT", "")):
        os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606
    # Nobody else may write to what is made here, and whoever made it can read it.
    os.umask(os.umask(0o077) & 0o077 | 0o022)
    # Where it is ignored, nobody learns how a program has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    from orchestration.cli.app import app
    from tickhouse.leaving import leave

    try:
        app()
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
