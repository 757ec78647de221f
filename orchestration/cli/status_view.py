"""The status as tables for people.

Pure: no I/O.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestration.monitoring.status import ProducerStatus, ServiceStatus, Status, StreamStatus, not_final
from tickhouse.contract.names import WINDOWS

_GAPS_SHOWN = 3
_COLOURS = {"running": "green", "ended": "green", "starting": "yellow", "waiting": "yellow", "stopping": "yellow"}
_LEGEND = (
    ("in", "messages read; zscore reads ticks and the results of moving"),
    ("out", "results published, each once it is final; prices: ticks kept"),
    ("late, dupl., rej.", "left out: late ticks, repeated ticks, what is no tick"),
    ("lag, unsaved", "messages yet to be read; results yet to be put into the table"),
    ("ms, tick", "the last micro-batch took; newest tick's time of day (UTC)"),
)


def render(status: Status, *, legend: bool = True, addresses: bool = True) -> RenderableType:
    """The status in 80 columns. Where there is little room, the legend and the addresses may be left out."""
    parts: list[RenderableType] = [_overview(status, addresses=addresses), *_news(status), Text()]
    parts += [_streams_table(status), Text(), _load_table(status)]
    if legend:
        parts += [Text(), _legend()]
    return Group(*parts)


def fitting(status: Status, console: Console) -> RenderableType:
    """The status with as much as there is room for in a terminal's window."""
    for legend, addresses in ((True, True), (False, True), (False, False)):
        shown = render(status, legend=legend, addresses=addresses)
        if len(console.render_lines(shown, pad=False)) <= console.height:
            break
    return shown


def _news(status: Status) -> list[Text]:
    """What is wrong, or was."""
    found = [Text(problem, style="red") for problem in status.problems]
    for name, stream in status.streams.items():
        if stream.error and stream.state != "running":
            found.append(Text(f"{name}: {stream.error.splitlines()[0]}", style="red"))
    for gap in status.gaps[-_GAPS_SHOWN:]:
        found.append(
            Text(
                f"{gap.query}: {gap.topic} partition {gap.partition} was skipped from offset {gap.from_offset} to "
                f"{'its end' if gap.to_offset is None else gap.to_offset} ({gap.reason}) at {gap.skipped_at:%F %T}",
                style="yellow",
            )
        )
    if status.producer.error or status.producer.note:
        found.append(Text(f"producer: {status.producer.error or status.producer.note}", style="yellow"))
    return found


def _overview(status: Status, *, addresses: bool) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    # An address is there to be copied: never cut off.
    table.add_column(overflow="fold")
    table.add_row("At work", _at_work(status))
    source = status.source or "none: nothing was started in this home"
    replay = source.startswith("replay:")
    table.add_row("Prices", f"{source} ({status.source_note})" if status.source_note and not replay else source)
    producer = status.producer
    state = _state(producer.state, "ended with the recording" if producer.state == "ended" else None)
    sent = f"  {producer.acknowledged:,} sent, last {producer.last_timestamp or '-'}"
    table.add_row("Producer", Text.assemble(state, sent))
    if replay:
        table.add_row("Recording", _recording(status))
    if addresses:
        table.add_row("Kafka", status.kafka_bootstrap or "-")
        table.add_row("Tables", status.lakehouse)
        table.add_row("MongoDB", status.mongo_uri or "-")
        table.add_row("Dagster", status.dagster_url or "-")
        table.add_row("Board", status.board_url or "-")
    names: dict[str, list[str]] = {}
    for name, service in status.services.items():
        if name != "producer":
            names.setdefault(service.state, []).append(name)
    services = [Text.assemble(_state(state), f" {', '.join(of_state)}  ") for state, of_state in names.items()]
    table.add_row("Services", Text.assemble(*services) if services else "-")
    return table


def _at_work(status: Status) -> Text:
    if not status.not_at_work:
        return Text("yes", "green")
    parts: list[ServiceStatus | ProducerStatus | StreamStatus] = [
        *status.services.values(),
        status.producer,
        *status.streams.values(),
    ]
    if all(part.pid is None for part in parts):
        if status.up_pid is not None:
            return Text(f"no: the stack is starting or stopping (process {status.up_pid})", "yellow")
        return Text("no: nothing is running; `tickhouse up` starts it", "red")
    idle = [reason for reason in status.not_at_work if reason not in status.problems]
    return Text(f"no: {', '.join(idle) or 'see below'}", "red")


def _recording(status: Status) -> Text:
    if status.problems:
        return Text("unknown how much of it has gone through: see below")
    if not status.drained:
        return Text(f"under way: {status.waiting_for[0]}")
    done = Text("all of it has gone through", "green")
    waiting = not_final(status)
    if not waiting:
        return done
    wait = "1 tick is not final yet: it waits" if waiting == 1 else f"{waiting:,} ticks are not final yet: they wait"
    return Text.assemble(done, f"; {wait} for later ticks")


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column(first, no_wrap=True)
    return table


def _streams_table(status: Status) -> Table:
    # Fits into 80 columns; what is left out here is in the JSON form.
    table = _table("Streams", "stream")
    table.add_column("state", no_wrap=True)
    for heading in ("in", "out", "late", "dupl.", "rej.", "lag", "unsaved", "ms", "tick"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, stream in status.streams.items():
        numbers = (
            stream.input_rows, stream.output_rows, stream.late, stream.duplicates, stream.rejects, stream.lag,
            stream.archive_lag, stream.last_batch_ms,
        )  # fmt: skip
        table.add_row(
            name,
            _state(stream.state),
            *(_short(number) for number in numbers),
            stream.last_event_time[11:19] if stream.last_event_time else "-",
        )
    return table


def _load_table(status: Status) -> Table:
    table = _table("MongoDB: collections btc-price-zscore-WINDOW", "window")
    for window in WINDOWS:
        table.add_column(window, justify="right", no_wrap=True)
    collections = status.load.values()
    table.add_row("documents", *(_documents(collection.documents) for collection in collections))
    versions = (
        "-" if collection.delta_version is None else f"{collection.delta_version}" for collection in collections
    )
    table.add_row("table version", *versions)
    return table


def _legend() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), style="dim")
    table.add_column(no_wrap=True)
    table.add_column()
    for head, text in _LEGEND:
        table.add_row(head, text)
    return table


def _state(state: str, told: str | None = None) -> Text:
    return Text(told or state, _COLOURS.get(state, "dim" if state == "stopped" else "red"))


def _documents(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count:,}" if count < 10_000_000 else _short(count)


def _short(number: float | None) -> str:
    """A count for people: whole up to five digits, then in thousands or millions."""
    if number is None:
        return "-"
    if number >= 10_000_000:
        return f"{number / 1_000_000:,.0f}M"
    return f"{number / 1_000:,.0f}k" if number >= 100_000 else f"{number:,.0f}"
