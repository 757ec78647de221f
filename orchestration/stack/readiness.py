"""Whether z-scores arrive at a stack that has just started, and else what it is still waiting for, in words.

Pure: no I/O.
"""

from __future__ import annotations

from orchestration.monitoring.status import Status, not_final

_WAITING = {"starting", "stopped", "stopping"}


def next_step(status: Status, lateness_seconds: float) -> str:
    """What must come next before z-scores are in MongoDB, to be read after "waiting for".

    `lateness_seconds` is how far time, as the ticks tell it, must have gone on before a result is final.
    """
    producer = status.producer
    if producer.error:
        return f"the producer, which has failed: {producer.error.splitlines()[0]}"
    if not producer.acknowledged:
        return "the first price" + (f" ({producer.note})" if producer.note else "")
    for name, stream in status.streams.items():
        if stream.state not in _WAITING | {"running"}:
            reason = f": {stream.error.splitlines()[0]}" if stream.error else ""
            return f"stream {name}, which is {stream.state.replace('_', ' ')}{reason}"
    idle = [name for name, stream in status.streams.items() if stream.state in _WAITING]
    if idle:
        return f"{'stream' if len(idle) == 1 else 'streams'} {', '.join(idle)} to be at work"
    zscore = status.streams["zscore"]
    if not zscore.output_rows:
        if producer.state == "ended" and status.streams["moving"].lag == zscore.lag == 0:
            return (
                f"more prices: the recording has ended, and none of its ticks is {lateness_seconds:g} s older than "
                "its last one, so that no result is final"
            )
        return (
            f"the first z-scores: each follows its price by {lateness_seconds:g} s, as a late price could change it "
            "until then"
        )
    if zscore.archive_lag:
        return "the first z-scores, which are computed by now, to be written to the table"
    return "the z-scores in the table to be loaded into MongoDB"


class Readiness:
    """Judges whether z-scores arrive in MongoDB that were computed since the first look, which was at the start."""

    def __init__(self, lateness_seconds: float) -> None:
        self._lateness_seconds = lateness_seconds
        self._earlier: int | None = None

    def judge(self, status: Status) -> tuple[bool, str]:
        """Whether they have arrived, and what to say: that they have, or what is waited for."""
        documents = max(collection.documents or 0 for collection in status.load.values())
        if self._earlier is None:
            # What an earlier run computed may be loaded only now.
            self._earlier = max(documents, status.streams["zscore"].output_rows or 0)
        if documents > self._earlier:
            return True, "z-scores are arriving"
        if status.drained:
            told = f"the recording has gone through everything: MongoDB has {documents:,} z-scores of each window"
            waiting = not_final(status)
            ticks = "tick waits" if waiting == 1 else "ticks wait"
            return True, f"{told}, and {waiting:,} {ticks} for later ones to be final" if waiting else told
        return False, next_step(status, self._lateness_seconds)
