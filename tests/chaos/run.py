"""One chaos run from start to verdict."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.faults import NotReached, Tools, strike
from tests.chaos.plan import EVERYTHING, Fault
from tests.chaos.power import PowerFolder
from tests.chaos.report import Record
from tests.chaos.victims import Stack
from tests.reference.compare import compare_everything
from tests.reference.report import Report

_START_SECONDS = 240.0
_RECOVERY_SECONDS = 240.0
_DRAIN_SECONDS = 420.0
_LOOK_SECONDS = 0.2
_ATTEMPTS = 3
_REST_SECONDS = 1.0
"""Least time from one fault to the next."""
_BREATH_SECONDS = 3.0
"""How long a target is left alone once it is back."""

Say = Callable[[str], None]


class Lost(RuntimeError):
    """The stack as a whole is gone or does not get ready: there is nothing left to break."""


@dataclass
class _Board:
    """Who is being broken or recovers. Guarded by its condition."""

    busy: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    overlaps: int = 0
    """Counts each start of a fault, so that one can tell whether others came in between."""


class Run:
    """A run of `faults` on a stack that replays `recording` from `speed` on.

    `disk`: where it lives, if small; `power`: where it lives, if a power cut can strike it.
    """

    def __init__(
        self,
        stack: Stack,
        faults: Sequence[Fault],
        seed: int,
        say: Say,
        speed: str,
        disk: Path | None = None,
        power: PowerFolder | None = None,
    ) -> None:
        self._stack = stack
        self._faults = list(faults)
        self._random = Random(f"run {seed}")
        self._say = say
        self._speed = speed
        self._disk = disk
        self._power = power
        self._board = _Board()
        self._records: list[Record] = []
        self._began = time.monotonic()

    def break_it(self) -> list[Record]:
        """Start the stack, do all faults, and wait until all is back. Raises Lost."""
        self._stack.start(self._speed)
        self._wait(lambda: self._stack.all_back(0), _START_SECONDS, "to get to work")
        threads = []
        long_cut = True
        for number in range(len(self._faults)):
            fault = self._next()
            tools = Tools(
                Random(self._random.random()), self._disk, self._power, long_cut and fault.kind == "cut broker"
            )
            long_cut = long_cut and fault.kind != "cut broker"
            record = Record(fault, time.monotonic() - self._began)
            self._records.append(record)
            thread = threading.Thread(target=self._one, args=(number + 1, record, tools), daemon=True)
            thread.start()
            threads.append(thread)
            time.sleep(self._random.uniform(_REST_SECONDS, 2 * _REST_SECONDS))
            if not self._stack.running() and fault.kind not in ("kill everything", "power cut"):
                raise Lost(f"tickhouse up has ended: see {self._stack.output}")
        for thread in threads:
            thread.join()
        return self._records

    def verdict(self, recording: Path) -> Report:
        """Let the rest of the recording through as fast as it goes, and compare everything."""
        self._say("the rest of the recording, as fast as it goes")
        self._stack.stop()
        self._stack.start("max")
        self._wait(self._is_drained, _DRAIN_SECONDS, "to drain")
        places = self._stack.endpoints
        return compare_everything(places.kafka_bootstrap, places.lakehouse, places.mongo_uri, sent=recording)

    def _is_drained(self) -> bool:
        try:
            return bool(self._stack.status()["drained"])
        except subprocess.CalledProcessError:
            return False

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if not self._stack.running():
                raise Lost(f"tickhouse up has ended: see {self._stack.output}")
            if time.monotonic() > deadline:
                raise Lost(f"the stack was given {seconds:.0f} s {what}, and has not: see {self._stack.output}")
            time.sleep(_LOOK_SECONDS)

    def _next(self) -> Fault:
        """The first fault that can be done now, taken off the list; waits until there is one."""
        board = self._board
        with board.changed:
            while True:
                for fault in self._faults:
                    # What has the machine for itself waits for its turn, and lets nothing pass it.
                    free = not board.busy if fault.exclusive else not board.busy & (fault.involved | {EVERYTHING})
                    if free:
                        self._faults.remove(fault)
                        board.busy |= fault.involved
                        board.overlaps += 1
                        return fault
                    if fault.exclusive:
                        break
                board.changed.wait()

    def _one(self, number: int, record: Record, tools: Tools) -> None:
        fault, board = record.fault, self._board
        name = f"{number:>4}  {fault.kind} · {fault.target}"
        with board.changed:
            others, started = board.busy != fault.involved, board.overlaps
        try:
            since = self._strike(name, record, tools)
            if since is None:
                return
            record.struck = True
            self._tell(f"{name}: struck")
            deadline = time.monotonic() + _RECOVERY_SECONDS
            while not self._is_back(fault, since):
                if time.monotonic() > deadline:
                    record.note = f"not back within {_RECOVERY_SECONDS:.0f} s"
                    self._tell(f"{name}: {record.note}")
                    return
                time.sleep(_LOOK_SECONDS)
            record.recovery = time.time() - since
            record.alone = not others and board.overlaps == started
            self._tell(f"{name}: back after {record.recovery:.1f} s")
            time.sleep(_BREATH_SECONDS)
        except Exception as error:
            record.note = f"{type(error).__name__}: {error}"
            self._tell(f"{name}: {record.note}")
        finally:
            with board.changed:
                board.busy -= fault.involved
                board.changed.notify_all()

    def _strike(self, name: str, record: Record, tools: Tools) -> float | None:
        """Strike, waiting for another such moment if one passes; None when none has come."""
        for _attempt in range(_ATTEMPTS):
            try:
                return strike(self._stack, record.fault, tools)
            except NotReached as reason:
                record.note = str(reason)
                self._tell(f"{name}: not done, {reason}")
        return None

    def _is_back(self, fault: Fault, since: float) -> bool:
        return self._stack.all_back(since) if fault.exclusive else self._stack.back(fault.target, since)

    def _tell(self, sentence: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} s {sentence}")
