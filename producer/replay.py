"""Replaying a recording, each line exactly once on the topic, however often the replay is killed and started."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from confluent_kafka import KafkaException

from producer.heartbeat import Progress, utc_text
from producer.lines import key_of, partition_of, shift_tick
from producer.publish import DeliveryError, Publisher
from producer.recordings.count import Count, Numbers
from producer.recordings.errors import RecordingError
from producer.recordings.question import Answer, Found
from producer.recordings.recording import Recording, judge
from producer.recordings.report import after, before
from producer.recordings.sorting import in_order
from producer.resume import HEADER, Digest, OnTopic, Position, Reached, ReplayId, read_topic
from producer.schedule import Outlook, Pace, plausible_times
from producer.sources import report_broker

_STEPS_AT_ONCE = 10_000
_SLICE_SECONDS = 1.0  # how often a long wait looks at how the broker does

_log = logging.getLogger(__name__)


class Survey(NamedTuple):
    """What a first pass over the recording found."""

    finished: ReplayId
    """All lines that end with a newline."""
    whole: ReplayId
    """All lines: one more where the last has no newline yet, so that the line may still grow."""
    reached: Reached
    shift_ms: int
    numbers: Numbers
    """Of the lines that are still to be sent."""

    @property
    def lines(self) -> int:
        assert self.whole.lines is not None
        return self.whole.lines


class _Step(NamedTuple):
    """One line of a recording on its way out."""

    number: int
    line: bytes
    key: bytes | None
    partition: int
    tick_ms: int | None
    """Its timestamp as recorded, None for a line that is no tick."""


class ReplaySource:
    """Replays one recording."""

    def __init__(
        self,
        recording: Recording,
        *,
        bootstrap: str,
        security: Mapping[str, str],
        topic: str,
        speed: float | None,
        shift_to_now: bool,
        sort: bool,
        folder: Path,
        step_ms: int,
        lateness_seconds: float,
        publisher: Publisher,
        progress: Progress,
        stop: threading.Event,
        ask: Callable[[Found], Answer] | None,
    ) -> None:
        """`speed` is in recorded seconds per second, None for as fast as it goes; `folder` is for sorting, and emptied;
        `ask`, if there is one, decides after what was found.
        """
        self._recording = recording
        self._name = str(recording.place)
        self._bootstrap = bootstrap
        self._security = security
        self._topic = topic
        self._speed = speed
        self._mode = "now" if shift_to_now else "recorded"
        self._sort = sort
        self._folder = folder
        self._step_ms = step_ms
        self._lateness_seconds = lateness_seconds
        self._lateness_ms = round(lateness_seconds * 1_000)
        self._publisher = publisher
        self._progress = progress
        self._stop = stop
        self._ask = ask
        self._last_ms: int | None = None
        self._report_at = 0.0

    def run(self) -> bool:
        """Replay; True when every line of the recording is on the topic and confirmed, False when told to stop.

        Raises RecordingError, ResumeError, DeliveryError, Stopped.
        """
        try:
            return self._run()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> bool:
        on_topic = self._read_topic()
        if self._stop.is_set():
            return False
        survey = self._prepare(on_topic)
        if survey is None:
            return False
        self._progress.change("running")
        sent = self._send(survey, on_topic).numbers()
        while self._publisher.waiting and not self._stop.wait(0.02):
            self._report()
        self._report()
        if self._stop.is_set():
            return False
        already = survey.lines - survey.numbers.lines
        self._progress.delivered = after(self._name, already, sent, lateness_seconds=self._lateness_seconds)
        for sentence in self._progress.delivered:
            _log.info("%s", sentence)
        return True

    def _read_topic(self) -> OnTopic:
        def progress(read: int, total: int) -> None:
            self._progress.change("waiting", f"reading the topic: {read:,} of {total:,} messages")

        try:
            return read_topic(
                self._bootstrap,
                self._security,
                self._topic,
                self._publisher.partitions,
                self._lateness_ms,
                lambda: not self._stop.is_set(),
                progress,
            )
        except KafkaException as error:
            raise DeliveryError(f"the broker could not be asked what is on the topic: {error}") from error

    def _prepare(self, on_topic: OnTopic) -> Survey | None:
        """What is to be sent, in the order in which it is, once it was said what that is; None when it is not."""
        while True:
            if self._sort:
                self._progress.change("waiting", "sorting the recording")
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir(parents=True)
                self._recording = in_order(self._recording, self._folder)
            self._progress.change("waiting", "reading the recording")
            survey = self._survey(on_topic)
            sentences = before(
                self._name,
                self._recording.form,
                survey.lines - survey.numbers.lines,
                survey.numbers,
                lateness_seconds=self._lateness_seconds,
                sort=self._sort,
            )
            for sentence in sentences:
                _log.info("%s", sentence)
            self._progress.found = sentences
            late = survey.numbers.late
            found = Found(sentences=sentences, late=late, late_unsorted=late - survey.numbers.late_for_good)
            answer = self._ask(found) if self._ask is not None and sentences else Answer.send
            if answer == Answer.stop:
                return None
            if answer == Answer.send or self._sort:
                return survey
            self._sort = True

    def _survey(self, on_topic: OnTopic) -> Survey:
        digest = Digest(replay.lines for replay in on_topic.replays if replay.lines is not None)
        count = Count(self._lateness_ms, on_topic.recent)
        now_ms = time.time_ns() // 1_000_000
        shift_ms: int | None = 0 if self._mode == "recorded" else None
        first_ms: int | None = None
        outlook = Outlook(now_ms, self._speed)
        unfinished: bytes | None = None
        for lines, is_unfinished in self._recording.batches():
            verdicts = judge(lines)
            times = verdicts.timestamps
            ticks = verdicts.of_symbol >= 0
            if first_ms is None and ticks.any():
                first_ms = int(times[ticks][0])
            if shift_ms is None and first_ms is not None:
                # Whole steps, so that what was on the grid of the step stays on it.
                shift_ms = (now_ms - first_ms) // self._step_ms * self._step_ms
            recorded = [time if tick else None for time, tick in zip(times.tolist(), ticks.tolist(), strict=True)]
            sent_ms = np.array(outlook.sent_ms(recorded))
            count.add(self._recording.header + digest.lines + 1, verdicts, times + (shift_ms or 0), sent_ms)
            if is_unfinished:
                unfinished = lines.pop()
            digest.add(lines)
        finished = ReplayId(digest.text(), digest.lines, self._mode)
        if unfinished is not None:
            digest.add([unfinished])
        whole = ReplayId(digest.text(), digest.lines, self._mode)

        def is_ours(replay: ReplayId) -> bool:
            known = whole.digest if replay.lines is None else digest.kept.get(replay.lines)
            return replay.mode == self._mode and replay.digest == known

        reached = on_topic.reached(self._publisher.partitions, is_ours)
        if reached.shift is not None:
            shift_ms = reached.shift // 1_000
        survey = Survey(finished, whole, reached, shift_ms or 0, count.numbers())
        if any(reached.lines.values()):
            _log.info("an earlier run of this replay got to line %d", max(reached.lines.values()))
            survey = survey._replace(numbers=self._count_missing(survey, on_topic, now_ms))
        return survey

    def _count_missing(self, survey: Survey, on_topic: OnTopic, now_ms: int) -> Numbers:
        """The same of the lines that are not on the topic yet, where others are."""
        count = Count(self._lateness_ms, on_topic.recent)
        outlook = Outlook(now_ms, self._speed)
        missing = self._missing(survey)
        while steps := list(itertools.islice(missing, _STEPS_AT_ONCE)):
            for step, sent_ms in zip(steps, outlook.sent_ms([step.tick_ms for step in steps]), strict=True):
                timestamp = None if step.tick_ms is None else step.tick_ms + survey.shift_ms
                count.add_line(self._recording.header + step.number, step.line, step.key, timestamp, sent_ms)
        return count.numbers()

    def _send(self, survey: Survey, on_topic: OnTopic) -> Count:
        count = Count(self._lateness_ms, on_topic.recent)
        finished = survey.finished.lines or 0
        partitions, shift_ms = self._publisher.partitions, survey.shift_ms
        for step in self._paced(survey):
            line, timestamp = step.line, step.tick_ms
            if timestamp is not None and shift_ms:
                line, timestamp = shift_tick(line, timestamp, shift_ms * 1_000), timestamp + shift_ms
            replay = survey.finished if step.number <= finished else survey.whole
            header = Position(replay, partitions, step.number, shift_ms * 1_000).header()
            now_ms = time.time_ns() // 1_000_000
            self._publisher.send(step.key, line, step.partition, [(HEADER, header)], now_ms)
            count.add_line(step.number, line, step.key, timestamp, now_ms)
            if timestamp is not None:
                self._last_ms = timestamp
            if time.monotonic() >= self._report_at:
                self._report()
        return count

    def _report(self) -> None:
        self._report_at = time.monotonic() + _SLICE_SECONDS
        if self._last_ms is not None:
            self._progress.last_timestamp = _utc_text_or_none(self._last_ms / 1e3)
        report_broker(self._publisher, self._progress)

    def _missing(self, survey: Survey) -> Iterator[_Step]:
        """The lines that are not on the topic yet, in order. Raises RecordingError."""
        publisher = self._publisher
        reached = survey.reached.lines
        digest = Digest([survey.finished.lines or 0])
        number = 0
        for lines, _ in self._recording.batches():
            lines = lines[: survey.lines - number]
            digest.add(lines)
            if digest.lines == survey.lines:
                lines = self._unchanged(survey, digest, lines)
            verdicts = judge(lines)
            keys = [symbol.encode() for symbol in verdicts.symbols]
            places = [publisher.partition_of_key(key) for key in keys]
            for line, at, time_ms in zip(lines, verdicts.of_symbol.tolist(), verdicts.timestamps.tolist(), strict=True):
                number += 1
                if at >= 0:
                    key: bytes | None = keys[at]
                    partition = places[at]
                else:
                    key = key_of(line)
                    partition = partition_of(line, key, publisher.partitions, publisher.partition_of_key)
                if number > reached[partition]:
                    yield _Step(number, line, key, partition, time_ms if at >= 0 else None)
            if self._stop.is_set():
                return
            if digest.lines == survey.lines:
                return
        if digest.lines < survey.lines:
            raise RecordingError(f"{self._name} was cut short while it was replayed; replay it onto an empty topic")

    def _unchanged(self, survey: Survey, digest: Digest, lines: list[bytes]) -> list[bytes]:
        """The last lines, as far as they are unchanged: one without a newline may have grown. Raises RecordingError."""
        if digest.text() == survey.whole.digest:
            return lines
        if survey.finished != survey.whole and digest.kept.get(survey.finished.lines or 0) == survey.finished.digest:
            _log.warning("the last line of %s has grown meanwhile: replay it again to send that", self._name)
            return lines[:-1]
        raise RecordingError(f"{self._name} was changed while it was replayed; replay it onto an empty topic")

    def _paced(self, survey: Survey) -> Iterator[_Step]:
        """The same lines, each when it is due; ends early when told to stop."""
        if self._speed is None:
            for step in self._missing(survey):
                if self._stop.is_set():
                    return
                yield step
            return
        pace = Pace(self._speed)
        timed = ((step, None if step.tick_ms is None else step.tick_ms / 1e3) for step in self._missing(survey))
        for step, recorded in plausible_times(timed):
            if recorded is not None:
                due = pace.due(recorded, time.monotonic())
                while (left := due - time.monotonic()) > 0:
                    self._report()
                    if self._stop.wait(min(left, _SLICE_SECONDS)):
                        return
            if self._stop.is_set():
                return
            yield step


def _utc_text_or_none(seconds: float) -> str | None:
    try:
        return utc_text(seconds)
    except (ValueError, OverflowError):
        return None
