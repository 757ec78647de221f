"""When all tables and collections are materialised and all their checks evaluated, by the job `check_everything`.

Once an hour; and a few times soon after the streams have started, as an asset's page in Dagster shows what its latest
materialisation told: who has just started the stack would see the first rows for up to an hour, and no checks. No more
often than that, because Dagster's event log keeps it all.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

FIRST_MINUTES = (2, 5, 10, 15)
"""After the streams have started."""
MINUTE_OF_HOUR = 7
"""Not on the hour, when everybody else does something."""


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(str(number) for number in numbers[:-1])} and {numbers[-1]}"


MOMENTS = (
    f"{_listed(FIRST_MINUTES)} minutes after the streams have started, and then {MINUTE_OF_HOUR} minutes past each hour"
)
"""For the descriptions of what is seen then."""


def first_checks_due(running_seconds: float | None, since_last: float | None) -> bool:
    """Whether one of the first moments has passed of which there was no run yet.

    `running_seconds`: how long the streams have been running, None when none does; `since_last`: how long ago the job
    was launched last, by whomever, None when it never was.
    """
    if running_seconds is None:
        return False
    ages = [running_seconds - 60 * minutes for minutes in FIRST_MINUTES if running_seconds >= 60 * minutes]
    return bool(ages) and (since_last is None or since_last > ages[-1])
