"""How a stream is, judged by its process and its heartbeat, and what follows for it: pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestration.supervision.restart_policy import Decision, History, Life, decide

StreamState = Literal[
    "running",  # at work, by a fresh heartbeat
    "starting",  # alive, and not yet at work
    "stopping",  # asked to stop, or failed and about to end
    "stopped",  # ended because it was asked to, or never started
    "crashed",  # ended by itself
    "hung",  # alive, but silent or without progress for too long
    "given_up",  # crashed so often that it is left alone
]


@dataclass(frozen=True)
class Patience:
    """When a stream that is alive counts as hung. Times in seconds."""

    starting: float = 120
    """From the start of the process until its heartbeat must say that it runs."""
    silent: float = 45
    """Since the last heartbeat: one is due every second."""
    stalled: float = 300
    """Since one of its queries last got on, or had nothing to do, while messages wait for the stream."""
    idle: float = 120
    """From the start of the process until having had nothing to do is as good as having got on."""


DEFAULT_PATIENCE = Patience()
_WITHOUT_A_WORD = (
    "without a word, as what is killed by a signal does (SIGKILL when memory runs out: `dmesg` says so): its log may "
    "say more"
)


@dataclass(frozen=True)
class StreamView:
    """One stream as seen from outside."""

    state: StreamState
    pid: int | None = None
    running_seconds: float | None = None
    """Age of the process when it is as it should be (`running`, `starting`), else None."""
    error: str | None = None
    heartbeat: Mapping[str, Any] = field(default_factory=dict)
    """The last heartbeat of this stream, of whatever process; empty when there is none."""
    life: Life | None = None
    """Of the last process; None when there never was one."""

    @property
    def has_computed(self) -> bool:
        """Whether the running process has done a micro-batch of its computation, or found nothing to do."""
        computation = self.heartbeat.get("queries", {}).get(self.heartbeat.get("job"), {})
        return self.heartbeat.get("pid") == self.pid and bool(computation.get("got_on") or computation.get("idle"))


def judge_stream(
    *,
    pid: int | None,
    alive: bool,
    started_at: float,
    heartbeat: Mapping[str, Any] | None,
    now: float,
    lag: int | None = None,
    ended: str | None = None,
    monotonic: float | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> StreamView:
    """Judge a stream by its process and its heartbeat.

    `pid`: of the last process recorded for it, None when there never was one; `alive` and `started_at` (epoch seconds)
    are that process's. `heartbeat` may be an earlier process's: the pid in it tells. `lag` is the number of messages
    waiting for it, None when unknown. `ended` says how it ended, where that can be known. With `monotonic`, the
    machine's monotonic clock, ages do not depend on `now`, which may have been set since.
    """
    content = heartbeat or {}
    if pid is None:
        return StreamView("stopped", heartbeat=content)
    own = content if content.get("pid") == pid else {}
    if alive and monotonic is not None and "monotonic" in own:
        written_at = epoch_seconds(own["written_at"])
        now = written_at + monotonic - own["monotonic"]
        started_at = written_at - own["running_seconds"]
    state, error = _state(own, alive, ended, started_at, now, lag, patience)
    as_it_should_be = state in ("running", "starting")
    return StreamView(
        state,
        pid if alive else None,
        max(0.0, now - started_at) if as_it_should_be else None,
        error,
        content,
        Life(
            epoch_seconds(own["written_at"]) if "written_at" in own else started_at,
            _made_progress(own, started_at, patience),
            None if alive or own.get("retry", True) else own.get("error"),
        ),
    )


def _state(
    own: Mapping[str, Any],
    alive: bool,
    ended: str | None,
    started_at: float,
    now: float,
    lag: int | None,
    patience: Patience,
) -> tuple[StreamState, str | None]:
    """The state of a process and what is wrong with it, by its own heartbeat, empty when it has written none."""
    said, error = own.get("state"), own.get("error")
    if not alive:
        if said in ("stopped", "done"):
            return "stopped", None
        return "crashed", error or f"ended {ended or _WITHOUT_A_WORD}"
    age = max(0.0, now - started_at)
    if said in ("stopping", "stopped", "done", "failed"):
        return "stopping", error
    if said != "running":
        return ("hung", f"not at work {age:.0f} s after its start") if age > patience.starting else ("starting", None)
    silence = now - epoch_seconds(own["written_at"])
    if silence > patience.silent:
        return "hung", f"no heartbeat for {silence:.0f} s"
    stalled = now - min([max(started_at, time) for time in _progress_times(own)], default=started_at)
    if lag and stalled > patience.stalled:
        return "hung", f"no progress for {stalled:.0f} s, {lag} messages wait"
    return "running", error


def _made_progress(own: Mapping[str, Any], started_at: float, patience: Patience) -> bool:
    """Whether a process was good for something: no query of it was stuck, and one at least has done something.

    A query that found nothing to do is not stuck; having found nothing to do for long is as good as having done
    something.
    """
    queries = list(own.get("queries", {}).values())
    lasted = [
        bool(query.get("last_progress_at")) and epoch_seconds(query["last_progress_at"]) - started_at >= patience.idle
        for query in queries
    ]
    did = [bool(query.get("got_on")) or well for query, well in zip(queries, lasted, strict=True)]
    return any(did) and all(done or query.get("idle") for query, done in zip(queries, did, strict=True))


def _progress_times(heartbeat: Mapping[str, Any]) -> list[float]:
    queries = heartbeat.get("queries", {}).values()
    return [epoch_seconds(query["last_progress_at"]) for query in queries if query.get("last_progress_at")]


def epoch_seconds(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time with offset or `Z`."""
    return datetime.datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True)
class StreamSnapshot:
    """One stream as found by a look. `lag`: messages that wait for it, None when unknown."""

    view: StreamView
    wanted: bool
    pending: bool
    """Whether a run that will change it is under way."""
    lag: int | None = None
    archive_lag: int | None = None


def decide_stream(sight: StreamSnapshot, history: History, now: float, kafka_away: str | None) -> Decision:
    """What to do about one stream. `kafka_away` says why the broker cannot be reached, None when it can."""
    if sight.pending:
        return Decision("nothing", "a run about it is under way", history)
    return decide(
        wanted=sight.wanted,
        running_seconds=sight.view.running_seconds,
        history=history,
        now=now,
        life=sight.view.life,
        last_error=sight.view.error.splitlines()[0] if sight.view.error else None,
        blocked_by=kafka_away,
    )
