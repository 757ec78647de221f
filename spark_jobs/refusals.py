"""What no restart can help.

Belongs here: the common kind of all reasons for which a job must not be started again before somebody has done
something. Does not belong here: the reasons themselves (the modules that find them) or what a supervisor makes of it.
"""

from __future__ import annotations

EXIT_CODE = 2
"""The exit code of a job that ended with a `Refusal`, or whose settings are wrong."""


class Refusal(Exception):
    """The job cannot go on until somebody has done what the message says."""
