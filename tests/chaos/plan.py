"""What is broken in a run, and in which order: drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from tests.chaos.failpoints import IN_PYTHON
from tickhouse.contract.topology import JOBS

STREAMS = tuple(JOBS)
PUBLISHERS = tuple(name for name, spec in JOBS.items() if spec.outputs)
EVERYTHING = "everything"
"""The target of a fault during which nothing else is broken."""

AT_FILES = {
    "offset-log-written": STREAMS,
    "commit-log-written": STREAMS,
    "state-upload": PUBLISHERS,
    "delta-log-written": STREAMS,
}
"""Failpoint in Java to the streams that get there: a file that appears tells."""

FAILPOINTS = IN_PYTHON | AT_FILES


class Fault(NamedTuple):
    """One fault: its kind and whom it strikes."""

    kind: str
    target: str

    @property
    def exclusive(self) -> bool:
        """Whether it has the machine for itself."""
        return self.target == EVERYTHING

    @property
    def involved(self) -> set[str]:
        """Whom no other fault strikes meanwhile: without the stream whose results it loads, no load begins."""
        return {"load", "zscore"} if self.target == "load" else {self.target}


KINDS: dict[str, tuple[float, tuple[str, ...]]] = {
    "kill stream": (4, STREAMS),
    "kill driver": (2, STREAMS),
    "kill JVM": (2, STREAMS),
    "kill worker": (20, STREAMS),
    "kill service": (16, ("kafka", "mongod", "producer", "daemon", "code-server")),
    "kill run": (8, ("load",)),
    "suspend stream": (0.5, STREAMS),
    "suspend service": (8, ("kafka", "mongod", "producer", "daemon", "code-server")),
    "zombie": (1, PUBLISHERS),
    "kill everything": (0.3, (EVERYTHING,)),
    "power cut": (0.3, (EVERYTHING,)),
    "fill disk": (0.3, (EVERYTHING,)),
    "cut broker": (0.3, (EVERYTHING,)),
    **{f"failpoint {name}": (1, targets) for name, targets in FAILPOINTS.items()},
}
"""Kind to its weight in the draw, the lighter the longer it takes to come back, and its targets.

A stream is killed whole, or only its Python driver, its JVM or one of its Python workers; a zombie is a worker that
falls asleep in the middle of a transaction and wakes when another has taken its place."""

LONG_CUT_SECONDS = 120.0
SHORT_CUT_SECONDS = 15.0


def draw(seed: int, count: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Fault]:
    """`count` faults (at least one of each kind): every kind once, the rest by weight, in random order."""
    random = Random(f"faults {seed}")
    weights = [KINDS[kind][0] for kind in kinds]
    drawn = [*kinds, *random.choices(kinds, weights, k=max(0, count - len(kinds)))]
    random.shuffle(drawn)
    return [Fault(kind, random.choice(KINDS[kind][1])) for kind in drawn]


def brief(seed: int) -> list[Fault]:
    """Every kind of failpoint once and the commonest kills, on targets drawn from the seed: for a short run."""
    random = Random(f"brief {seed}")
    kinds = [kind for kind in KINDS if kind.startswith("failpoint")]
    kinds += ["kill stream", "kill worker", "kill run", "zombie"]
    drawn = [Fault(kind, random.choice(KINDS[kind][1])) for kind in kinds]
    drawn += [Fault("kill service", service) for service in ("kafka", "mongod", "producer")]
    random.shuffle(drawn)
    return drawn
