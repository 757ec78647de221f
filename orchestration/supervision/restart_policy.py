"""What to do about a process that should, or should not, be running: pure decisions.

No clock, no file, no Dagster.

How a caller uses it, every few seconds and for each process:

    decision = decide(wanted=True, running_seconds=None, history=history, now=time.time())
    history = decision.history                  # keep it, whatever the action
    if decision.action == "start":              # the attempt is already noted in the history
        ...start the process...

A first failure is answered at once, repeated ones after growing pauses, and at the limit the process is given up with
a reason. What clears the slate is work that gets done, as far as that can be seen, and otherwise time: a stream that is
killed every minute and gets on each time is not in a crash loop, one that ends at the same micro-batch each time is,
however long it takes. What says itself that no restart can help it is given up at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Action = Literal["nothing", "start", "wait", "give up"]


@dataclass(frozen=True)
class Policy:
    """How patient to be. Times in seconds.

    The first restart comes at once, the next ones after `first_pause`, twice that, and so on up to `longest_pause`.
    After `limit` attempts without good running in between the process is given up; what has no other measure of good
    running, or nothing to do, has run well after `healing` seconds.
    """

    first_pause: float = 5
    longest_pause: float = 60
    limit: int = 8
    healing: float = 120

    def pause(self, attempts: int) -> float:
        """Seconds to leave between the last of `attempts` attempts and the next."""
        return 0 if attempts == 0 else min(self.longest_pause, self.first_pause * 2.0 ** (attempts - 1))


DEFAULT_POLICY = Policy()


@dataclass(frozen=True)
class History:
    """Attempts to start a process since it last ran well, oldest first, in seconds since the epoch."""

    attempts: tuple[float, ...] = ()
    given_up: str | None = None
    """Why it is left alone until somebody starts it by hand."""
    since: float | None = None
    """Since when it has been looked after: what ended before is none of its failures."""

    def cleared(self) -> History:
        """With a clean slate."""
        return History(since=self.since)

    def to_json(self) -> dict[str, Any]:
        """A form that survives `json.dumps`."""
        return {"attempts": list(self.attempts), "given_up": self.given_up, "since": self.since}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> History:
        """What `to_json` gave."""
        return History(tuple(content["attempts"]), content["given_up"], content["since"])


@dataclass(frozen=True)
class Life:
    """A process from its start, or from its start to its end, judged by what it said of itself."""

    last_seen_at: float
    """When it last said something, in seconds since the epoch."""
    got_on: bool = False
    """Whether work was done in it, or it has run well for long with nothing to do."""
    refusal: str | None = None
    """Why no restart can help, if it ended saying so."""


@dataclass(frozen=True)
class Decision:
    """What to do now, why, and the history to keep."""

    action: Action
    reason: str
    history: History
    until: float | None = None
    """With `wait`: when the next attempt is due, in seconds since the epoch; None where something else decides."""


def decide(
    *,
    wanted: bool,
    running_seconds: float | None,
    history: History,
    now: float,
    life: Life | None = None,
    last_error: str | None = None,
    blocked_by: str | None = None,
    policy: Policy = DEFAULT_POLICY,
) -> Decision:
    """Decide about one process.

    `wanted`: whether it should run. `running_seconds`: how long it has been running, None when it is down (or hung,
    which is as bad). `life`: of the process that runs or ran last, None where nothing is known of its work: time alone
    then counts. `last_error`: why it ended, for the reasons given. `blocked_by`: what it needs and does not have
    (a broker that is away), as a phrase; it is then not started and no attempt is lost. `now` in epoch seconds.

    A process that is not wanted is left alone, running or not: stopping is for whoever changed the wish.
    """
    if not wanted:
        return Decision("nothing", "not wanted", History())
    if history.since is None:
        history = replace(history, since=now)
    if running_seconds is not None:
        well = running_seconds >= policy.healing if life is None else life.got_on
        # One that was given up and runs again was started by hand: by someone who has removed the cause.
        return Decision("nothing", "running", history.cleared() if well or history.given_up is not None else history)
    if life is not None and life.refusal is not None and life.last_seen_at >= (history.since or 0):
        action: Action = "nothing" if history.given_up == life.refusal else "give up"
        return Decision(action, f"given up: {life.refusal}", replace(history, given_up=life.refusal))
    if history.given_up is not None:
        return Decision("nothing", f"given up: {history.given_up}", history)
    if blocked_by is not None:
        return Decision("wait", f"waiting: {blocked_by}", history)
    attempts = history.attempts
    # A life counts once: not again when the attempt that follows it comes to no process at all.
    if life is not None and life.got_on and attempts and life.last_seen_at >= attempts[-1]:
        attempts = ()
    because = f": {last_error}" if last_error else ""
    if len(attempts) >= policy.limit:
        reason = f"down again after {len(attempts)} attempts{because}"
        return Decision("give up", reason, replace(history, given_up=reason))
    due = attempts[-1] + policy.pause(len(attempts)) if attempts else now
    # A due time further away than the longest pause comes from a clock that was set back: it must not block.
    if now < due <= now + policy.longest_pause:
        return Decision("wait", f"attempt {len(attempts) + 1} is due in {due - now:.0f} s{because}", history, due)
    return Decision(
        "start", f"attempt {len(attempts) + 1} of {policy.limit}{because}", replace(history, attempts=(*attempts, now))
    )
