"""Running a stream job: its queries from start to end, with heartbeat and clean stop.

Every job has a compute query, named after the job. A job that publishes to topics has, for each, an archive query
that copies the topic to a Delta table with longer micro-batches, as each leaves a file that readers pay for.
"""

from __future__ import annotations

import json
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from spark_jobs.checkpoints.checkpoint import NOT_BEGUN, VERSION, Checkpoint, Progress, rebuild_advice
from spark_jobs.checkpoints.files import files_at
from spark_jobs.checkpoints.gaps import find_gaps, refusal
from spark_jobs.checkpoints.lock import CheckpointHeld, lock_for_jvm
from spark_jobs.goal import Goal, goal_of
from spark_jobs.heartbeat import Heartbeat
from spark_jobs.jobs import prices
from spark_jobs.jobs.moving import MovingProcessor
from spark_jobs.jobs.symbol_processor import RESULT_TYPE, SymbolProcessor
from spark_jobs.jobs.trend import TrendProcessor
from spark_jobs.jobs.zscore import ZScoreProcessor
from spark_jobs.session import build_session
from spark_jobs.settings import StreamSettings
from spark_jobs.shutdown import StopRequest
from spark_jobs.sinks.delta import TableBatch, TableTarget, archive_batch, create_table, position
from spark_jobs.sinks.existing_results import Survey, survey
from spark_jobs.sinks.kafka import KafkaTarget, Markers, NoAnswer, Owner, Published, published, publishing
from spark_jobs.sources.packed_source import packed_stream
from spark_jobs.sources.result_wait import ResultWait
from spark_jobs.sources.source_config import Reading
from tickhouse.contract.topology import JOBS, JobSpec
from tickhouse.errors import EXIT_CODE, NonRetryableError, damage_in
from tickhouse.files import ForcedFolder
from tickhouse.kafka.access import librdkafka_security, refusal_in, spark_security
from tickhouse.kafka.broker_settings import RENEW_SECONDS, hazards
from tickhouse.kafka.markers import NOTHING_PUBLISHED, Marker, MarkerMismatch, MicroBatch, adopted, check_owner, stops
from tickhouse.kafka.offsets import Offsets, begin_at, named
from tickhouse.kafka.range_reader import OffsetRange
from tickhouse.kafka.topics import Topic, TopicsUnknown, TopicWatch, firsts, look
from tickhouse.places import local_path

_log = logging.getLogger(__name__)
_BUCKETS_OF_PARTITION = 32
"""Into how many keys of Spark's state the symbols of a partition are put: few enough for many symbols to share the cost
of a key, many enough for one that has news to have few others rewritten. Part of what state means."""
_PROCESSORS: dict[str, type[SymbolProcessor]] = {
    "moving": MovingProcessor,
    "zscore": ZScoreProcessor,
    "trend": TrendProcessor,
}
STOPPED_EXIT_CODE = 128 + signal.SIGTERM
"""As a shell reports a process that SIGTERM has ended."""
_BEAT_SECONDS = 1.0
_BATCH_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 30.0
_PACED_SECONDS = 0.1
"""Between looks for input by Spark, where what a micro-batch waits for is news from another stream (`pacing`)."""
_SETTLE_SECONDS = 60.0
"""After a start: then the markers are renewed, if nothing has been published until then."""
_SENDING_SECONDS = 30.0
"""Between looks whether the results of a long micro-batch arrive."""
_EXPLAIN_SECONDS = 5.0
"""For asking the brokers what they have, before a query starts and after it has failed."""


BatchWriter = Callable[[DataFrame, int], None]


class QueryFailed(Exception):
    """A query of the job ended with an error; the message is its root cause, in a line."""


def _root_cause(message: str) -> str:
    """The line that names what went wrong; around it Spark puts the traces of three processes and the plan."""
    cause = message.partition("=== Streaming Query ===")[0].strip()
    named = re.findall(r"^(?:[\w$]+\.)*[A-Z]\w*(?:Error|Exception|Operation|Failure)\b.*", cause, re.MULTILINE)
    return str(named[-1]) if named else cause.partition("\n")[0]


def run(name: str, settings: StreamSettings) -> int:
    """Run the job `name` until SIGTERM or SIGINT, or until what is there is done; returns the exit code.

    0 as asked, 1 after a failure, `refusals.EXIT_CODE` when a restart cannot help, `STOPPED_EXIT_CODE` when it was to
    process what is there and was stopped before that was done. The heartbeat's state: `stopped`, `failed`, or `done`.
    """
    stopping = StopRequest()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stopping.set())
    heartbeat = Heartbeat(settings.home / "run" / f"{name}.heartbeat.json", name, settings.trigger)
    heartbeat.beat()
    spark = None
    try:
        spark = build_session(name, settings)
        # Kept by name until the session has ended: with it go the locks of its checkpoints.
        job = _Job(JOBS[name], settings, spark, heartbeat, stopping)
        done = job.run()
    except NonRetryableError as error:
        _log.error("%s", error)
        _failed(heartbeat, str(error), retry=False)
        return EXIT_CODE
    except (CheckpointHeld, TopicsUnknown, QueryFailed) as error:
        _log.error("%s", error)
        _failed(heartbeat, str(error))
        return 1
    except Exception as error:
        # The last stop of everything unforeseen: it goes to the log whole, and to whoever watches.
        _log.exception("the job failed")
        _failed(heartbeat, f"{type(error).__name__}: {error}")
        return 1
    finally:
        if spark is not None:
            spark.stop()
    heartbeat.update(state="done" if done else "stopped")
    heartbeat.beat()
    return 0 if done or settings.trigger == "continuous" else STOPPED_EXIT_CODE


def _failed(heartbeat: Heartbeat, reason: str, *, retry: bool = True) -> None:
    heartbeat.update(state="failed", error=reason[:2_000], retry=retry)
    heartbeat.beat()


class _Job:
    def __init__(
        self,
        spec: JobSpec,
        settings: StreamSettings,
        spark: SparkSession,
        heartbeat: Heartbeat,
        stopping: StopRequest,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._spark = spark
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._client = {"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}
        self._available = settings.trigger == "available_now"
        self._target = KafkaTarget(self._spec.outputs, self._client)
        self._checkpoints: dict[str, tuple[Checkpoint, tuple[str, ...]]] = {}
        """By query, with the topics that it reads."""
        self._goals: dict[str, Goal] = {}
        """By query that is to process what is there: how far it must get."""
        self._renewed_at = time.monotonic() + _SETTLE_SECONDS - RENEW_SECONDS
        self._published_at = -math.inf
        """When a micro-batch was published last."""
        self._sending_since: float | None = None
        """When the micro-batch began that is being computed and published."""
        self._locks: list[Any] = []
        self._forced: dict[str, ForcedFolder] = {}
        """By query: checkpoints that are forced to disk before anything is written on their word."""
        self._table_ids: dict[str, str] = {}
        self._news: ResultWait | None = None

    def run(self) -> bool:
        """Run all queries; returns whether all that was there has been processed, False after a request to stop."""
        threading.Thread(target=self._look_at_brokers, name="look-at-brokers", daemon=True).start()
        if self._spec.outputs:
            threading.Thread(target=self._watch_sending, name="watch-sending", daemon=True).start()
        for table in self._spec.tables:
            self._table_ids[table] = create_table(TableTarget.of(table, self._settings))
        if self._available:
            return self._run_available()
        self._run_continuously()
        return False

    def _watch_sending(self) -> None:
        """In a thread of its own: tell that a long micro-batch gets on, by what arrives on the topics."""
        watch: TopicWatch | None = None
        known: Offsets | None = None
        since: float | None = None
        while not self._stopping.is_set():
            time.sleep(_SENDING_SECONDS)
            try:
                # Whoever is done soon need not be watched.
                if self._sending_since is None or self._sending_since != since:
                    known, since = None, self._sending_since
                    continue
                watch = watch or TopicWatch(self._spec.outputs, self._client)
                former, known = known, watch.written()
                if former is not None and former != known:
                    self._heartbeat.got_through(self._spec.name)
            except TopicsUnknown as error:
                _log.warning("whether results arrive is not known: %s", error)

    def _look_at_brokers(self) -> None:
        for sentence in hazards(self._client):
            _log.warning("%s", sentence)

    def _run_available(self) -> bool:
        self._heartbeat.update(state="running")
        # One after the other: what the compute query publishes is then there for the archive queries.
        for start in self._starts():
            query = start()
            while query.isActive and not self._done(query) and not self._stopping.wait(_BEAT_SECONDS):
                self._beat([query])
            self._finish([query])
            if self._stopping.is_set():
                return False
            if not self._done(query):
                raise QueryFailed(f"query {query.name} ended before it had processed all that was there at its start")
        return True

    def _done(self, query: StreamingQuery) -> bool:
        """Whether a query has processed all that was there at its start, by what its checkpoint has committed.

        What Spark says of the query's status does not tell: between two micro-batches it has no data either.
        """
        checkpoint, _ = self._checkpoints[str(query.name)]
        return self._goals[str(query.name)].reached(checkpoint.committed())

    def _run_continuously(self) -> None:
        first, *copies = self._starts()
        queries = [first()]
        self._heartbeat.update(state="running")
        while all(query.isActive for query in queries) and not self._stopping.wait(_BEAT_SECONDS):
            # Copies would take the processor from the first results, of which they are.
            if copies and _has_begun(queries[0]):
                queries += [start() for start in copies]
                copies = []
            self._beat(queries)
            self._keep_markers()
        self._heartbeat.update(state="stopping")
        self._beat(queries)
        self._finish(queries)

    def _beat(self, queries: list[StreamingQuery]) -> None:
        """Ask the queries how far they are, and say so.

        Asking once a second costs next to nothing; a listener in Python took a quarter of the JVM's time, as each event
        is taken apart through py4j.
        """
        for query in queries:
            report = query._jsq.lastProgress()
            idle = not query.status["isTriggerActive"]
            self._heartbeat.progress(str(query.name), json.loads(report.json()) if report else None, idle)
        self._heartbeat.beat()

    def _finish(self, queries: list[StreamingQuery]) -> None:
        """Stop queries, letting a micro-batch end if it ends soon. Raises QueryFailed for the first that had failed."""
        grace = int(_BATCH_GRACE_SECONDS / 0.1)
        for query in queries:
            while query.isActive and query.status["isTriggerActive"] and grace > 0:
                grace -= 1
                time.sleep(0.1)
            query.stop()
        self._beat(queries)
        for query in queries:
            failure = query.exception()
            if failure is not None:
                _log.error("query %s failed: %s", query.name, failure)
                self._explain(str(query.name), str(failure))
                reason = refusal_in(str(failure)) or _root_cause(str(failure))
                raise QueryFailed(f"query {query.name}: {reason}")

    def _explain(self, query: str, failure: str) -> None:
        """Raise the `NonRetryableError` that a query's failure comes to, if it comes to one."""
        checkpoint, _ = self._checkpoints[query]
        damage = damage_in(failure) or checkpoint.damage_of(failure)
        if damage is not None:
            raise damage
        try:
            # Whatever Spark's words for it: if messages or markers are gone, no restart can help.
            self._position(query, _EXPLAIN_SECONDS)
        except TopicsUnknown as error:
            _log.warning("whether messages are gone is not known: %s", error)

    def _starts(self) -> Iterator[Callable[[], StreamingQuery]]:
        if self._spec.outputs:
            yield self._start_compute
            for table, topic in self._spec.archives.items():
                yield partial(self._start_copy, table, topic, partial(self._archive_batch, table), (table,))
        else:
            (topic,) = self._spec.inputs
            yield partial(self._start_copy, self._spec.name, topic, self._prices_batch, self._spec.tables)

    def _start_compute(self) -> StreamingQuery:
        identity = {"lateness_ms": self._settings.lateness_ms, "state_partitions": self._settings.state_partitions}
        stops = self._claim(self._spec.name, self._spec.inputs, identity)
        processor = _PROCESSORS[self._spec.name](self._settings.lateness_ms)
        existing = self._checkpoints[self._spec.name][0].existing()
        target = self._target._replace(existing=Survey.from_json(existing).existing if existing else None)
        self._set_goal(self._spec.name, self._spec.inputs)
        writer = publishing(_results(self._read_packed(stops), processor), target).writeStream
        interval = self._settings.interval_seconds(self._spec.name)
        if self._available:
            interval = 0.0
        elif self._spec.awaited:
            self._news = ResultWait(self._spec.awaited, self._client)
            interval = _PACED_SECONDS
        writer = writer.foreachBatch(self._publish_batch).trigger(processingTime=_milliseconds(interval))
        return self._start(self._spec.name, writer)

    def _start_copy(self, name: str, topic: str, write: BatchWriter, tables: tuple[str, ...]) -> StreamingQuery:
        self._claim(name, (topic,), {table: self._table_ids[table] for table in tables})
        self._set_goal(name, (topic,))
        writer = self._read(topic).writeStream.foreachBatch(write)
        if self._available:
            writer = writer.trigger(availableNow=True)
        else:
            writer = writer.trigger(processingTime=_milliseconds(self._settings.archive_interval_seconds))
        return self._start(name, writer)

    def _set_goal(self, query: str, topics: tuple[str, ...]) -> None:
        if self._available:
            self._goals[query] = goal_of(TopicWatch(topics, self._client))

    def _start(self, name: str, writer: DataStreamWriter) -> StreamingQuery:
        return writer.queryName(name).option("checkpointLocation", self._settings.checkpoint_uri(name)).start()

    def _claim(self, name: str, topics: tuple[str, ...], identity: dict[str, Any]) -> list[Offsets]:
        """Take a query's checkpoint. Returns where its micro-batches must end (`markers.stops`)."""
        uri = self._settings.checkpoint_uri(name)
        folder = local_path(uri)
        if folder is not None:
            self._locks.append(lock_for_jvm(self._spark, folder))
            if self._settings.durable:
                self._forced[name] = ForcedFolder(folder)
        checkpoint = Checkpoint(files_at(uri, self._spark), self._spec.name)
        checkpoint.claim({"query": name, "version": VERSION, **identity})
        self._checkpoints[name] = (checkpoint, topics)
        progress, found, stops = self._position(name, _LOOK_SECONDS)
        checkpoint.note_topic_ids({topic: state.topic_id for topic, state in found.items()})
        begin = begin_at({topic: firsts(state) for topic, state in found.items()}, progress.offsets)
        self._heartbeat.resume(name, progress.batch if progress.batch >= 0 else None, named(begin))
        return stops

    def _position(self, query: str, seconds: float) -> tuple[Progress, dict[str, Topic], list[Offsets]]:
        """Where a query goes on, its topics as they are, and where its micro-batches must end.

        Raises CheckpointDamaged, DataLost or MarkerMismatch if it cannot go on there, TopicsUnknown after `seconds`. A
        query that has done nothing yet begins with what is there: nothing can be missing.
        """
        checkpoint, topics = self._checkpoints[query]
        progress = checkpoint.inspect() or NOT_BEGUN
        found = look(topics, self._client, seconds)
        wanted = progress.offsets
        must_end: list[Offsets] = []
        if not self._spec.publishes(query):
            # A copy goes on where its table ends.
            for topic, reached in self._copied(query, topics, found).items():
                wanted = {**wanted, topic: wanted.get(topic, {}) | reached}
        elif progress.batch < 0:
            markers, must_end = self._stops(query, checkpoint, progress)
            if markers == [NOTHING_PUBLISHED] * len(markers):
                checkpoint.note_begins({topic: firsts(state) for topic, state in found.items()})
            else:
                wanted = checkpoint.begins
        self._check_gaps(query, wanted, progress.planned, found)
        if self._spec.publishes(query) and progress.batch >= 0:
            _, must_end = self._stops(query, checkpoint, progress)
        if must_end:
            # What is to be computed once more must still be there.
            self._check_gaps(query, wanted, must_end[-1], found)
        return progress, found, must_end

    def _check_gaps(self, query: str, wanted: Offsets, planned: Offsets | None, found: Mapping[str, Topic]) -> None:
        checkpoint, _ = self._checkpoints[query]
        gaps = find_gaps(wanted, planned, checkpoint.topic_ids(), found)
        if gaps:
            raise refusal(query, self._spec.name, gaps)

    def _copied(self, table: str, topics: tuple[str, ...], found: Mapping[str, Topic]) -> Offsets:
        positions = {
            topic: position(self._settings.table_uri(table), topic, found[topic].topic_id, found[topic].partitions)
            for topic in topics
            if topic in found
        }
        return {topic: offsets for topic, offsets in positions.items() if offsets}

    def _stops(
        self, query: str, checkpoint: Checkpoint, progress: Progress
    ) -> tuple[list[Marker | None], list[Offsets]]:
        """Compare the markers with the checkpoint; the first time, write them. Returns them, and what they ask for."""
        markers = Markers(checkpoint.query_id, self._target, self._settings.state_partitions)
        owner = Owner(self._spec.name, self._target)
        try:
            owned_by = owner.read()
            if not checkpoint.marked and progress == NOT_BEGUN:
                # From here on no other checkpoint publishes what is not there yet.
                owner.write(checkpoint.query_id)
                self._survey(checkpoint)
            else:
                check_owner(owned_by, checkpoint.query_id)
                if owned_by is None:
                    owner.write(checkpoint.query_id)
            if checkpoint.marked:
                # Not read as they stand: a broker that comes back from a kill may still have a commit to carry out,
                # which is waited for.
                found = markers.write(lambda marker: marker)
            else:
                known = any(marker is not None for marker in markers.read())
                found = markers.write(lambda marker: adopted(marker, known, *progress))
                checkpoint.note_marked()
            return found, stops(found, *progress)
        except MarkerMismatch as error:
            told = f"query {query} stops, as it would repeat results or leave some out: {error}. To go on with all of "
            raise MarkerMismatch(f"{told}them, each once, {rebuild_advice(self._spec.name)}") from error
        except (KafkaException, NoAnswer) as error:
            raise TopicsUnknown(f"Kafka does not say what {query} has published: {error}") from error

    def _survey(self, checkpoint: Checkpoint) -> None:
        """Note for a new checkpoint which results are there already."""
        text = checkpoint.existing()
        known = Survey.from_json(text) if text is not None else None
        found = survey(self._spec.outputs, self._client, self._settings.lateness_ms, known, self._heartbeat.beat)
        checkpoint.keep_existing(found.to_json())

    def _keep_markers(self) -> None:
        """Now and then renew what brokers would forget."""
        if self._spec.outputs and time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            threading.Thread(target=self._renew_markers, name="renew-markers", daemon=True).start()

    def _renew_markers(self) -> None:
        checkpoint, _ = self._checkpoints[self._spec.name]
        try:
            Owner(self._spec.name, self._target).write(checkpoint.query_id)
            # Publishing renews them, and would have to begin a new session.
            if time.monotonic() - self._published_at > RENEW_SECONDS / 2:
                Markers(checkpoint.query_id, self._target, self._settings.state_partitions).write(lambda marker: marker)
        except (KafkaException, NoAnswer, MarkerMismatch) as error:
            _log.warning("the markers of what is published are not renewed: %s", error)

    def _read(self, topic: str) -> DataFrame:
        """A topic as Spark plans to read it; what is planned is read by the tasks that write it (`range_reader`)."""
        reader = self._spark.readStream.format("kafka").option("subscribe", topic)
        return (
            reader.option("kafka.bootstrap.servers", self._settings.kafka_bootstrap)
            .options(**spark_security(self._settings))
            .option("kafka.isolation.level", "read_committed")
            .option("startingOffsets", "earliest")
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._settings.archive_max_offsets_per_trigger)
            .load()
        )

    def _read_packed(self, stops: list[Offsets]) -> DataFrame:
        buckets = _BUCKETS_OF_PARTITION * self._settings.state_partitions
        goal = self._goals.get(self._spec.name)
        until = None if goal is None else goal.ends
        largest_batch = self._settings.max_offsets_per_trigger
        begins = self._checkpoints[self._spec.name][0].begins or None
        reading = Reading(
            self._spec.inputs, self._client, largest_batch, buckets, self._spec.awaited, until, begins, tuple(stops)
        )
        return packed_stream(self._spark, reading)

    def _archive_batch(self, table: str, batch_rows: DataFrame, batch: int) -> None:
        target = TableTarget.of(table, self._settings)
        table_batch = self._table_batch(table, batch)
        foreign = archive_batch(batch_rows.sparkSession, table_batch, self._client, target)
        if foreign:
            _log.warning("%d messages on %s are no results and are left out", foreign, table_batch.wanted.topic)
            self._heartbeat.foreign(table, foreign)

    def _table_batch(self, query: str, number: int) -> TableBatch:
        """What a micro-batch of a query has of its one topic, once the plan of it is sure to last."""
        self._force(query)
        checkpoint, (topic,) = self._checkpoints[query]
        first, ends = checkpoint.range_of(number)
        topic_ids = checkpoint.topic_ids()
        if topic not in topic_ids:
            # It did not exist yet when the query was started.
            topic_ids = {name: state.topic_id for name, state in look((topic,), self._client, _LOOK_SECONDS).items()}
            checkpoint.note_topic_ids(topic_ids)
        wanted = OffsetRange(topic, first.get(topic, {}), ends[topic])
        return TableBatch(wanted, topic_ids[topic], checkpoint.query_id, number)

    def _force(self, query: str) -> None:
        """Have the plan of the micro-batch, and all before it, on disk: what is written next is only repeated by it."""
        if query in self._forced:
            self._forced[query].force()

    def _prices_batch(self, batch_rows: DataFrame, batch: int) -> None:
        table_batch = self._table_batch(self._spec.name, batch)
        self._note(prices.write_batch(batch_rows.sparkSession, table_batch, self._client, self._settings))

    def _publish_batch(self, batch_rows: DataFrame, batch: int) -> None:
        began = time.monotonic()
        self._force(self._spec.name)
        checkpoint, _ = self._checkpoints[self._spec.name]
        self._sending_since = began
        self._note(published(batch_rows, MicroBatch(batch, *checkpoint.range_of(batch))))
        self._sending_since = None
        self._published_at = time.monotonic()
        if self._news is not None:
            done = time.monotonic()
            self._news.wait(began + self._settings.interval_seconds(self._spec.name), self._stopping)
            self._heartbeat.waited(batch, round((time.monotonic() - done) * 1_000))

    def _note(self, published: Published) -> None:
        self._heartbeat.results(published.counts, published.event_time)


def _has_begun(query: StreamingQuery) -> bool:
    """Whether a query has looked for input at least once: a hint on when others may begin, never that it is done."""
    return query._jsq.lastProgress() is not None or query.status["message"].startswith("Waiting")


def _milliseconds(seconds: float) -> str:
    """As Spark reads intervals."""
    return f"{round(seconds * 1_000)} milliseconds"


def _results(packed: DataFrame, processor: SymbolProcessor) -> DataFrame:
    """Packed ticks to result rows (`operators.RESULT_TYPE`), one state per bucket of symbols."""
    # Told that all is in one partition, Spark has nothing to shuffle where the state has one, too.
    return packed.coalesce(1).groupBy("bucket").transformWithState(processor, RESULT_TYPE, "Append", "None")
