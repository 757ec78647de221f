"""What the page says in words: where prices come from, how old they are, how the streams are, what went wrong.

Belongs here: the words and their arrangement. Does not belong here: charts (`figures`), or the whole page (`page`).
Pure. Whatever comes from data is shown as text.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from dash import html
from dash.development.base_component import Component

from orchestration.alert_log import Alert
from orchestration.board.market import Market
from orchestration.board.view import View
from orchestration.status import Status
from spark_jobs.contract import WINDOWS

STALE_SECONDS = 90
"""Tables get a commit every 20 s, and one that is slow is not yet a reason to worry."""
_UNSPOKEN: dict[str, Any] = {"aria-hidden": "true"}
_SIGNS = {
    "running": ("●", "good"),
    "starting": ("◐", "soon"),
    "waiting": ("◐", "soon"),
    "stopping": ("◐", "soon"),
    "ended": ("■", "rest"),
    "stopped": ("○", "rest"),
    "crashed": ("✖", "bad"),
    "hung": ("✖", "bad"),
    "failed": ("✖", "bad"),
    "given_up": ("✖", "bad"),
}


@dataclass(frozen=True)
class Notice:
    """A short statement with a sign before it. `tone`: good, soon, rest, warn or bad."""

    sign: str
    tone: str
    text: str
    detail: str = ""


def source_notice(status: Status | None) -> Notice:
    """Where the prices come from; that they are made up is said before anything else."""
    if status is None or status.source is None:
        return Notice("○", "rest", "NO SOURCE", "nothing was started in this home yet")
    if status.source == "simulator":
        note = (status.source_note or "").removeprefix("SIMULATED ")
        return Notice("◆", "warn", "SIMULATED PRICES", note)
    if status.source.startswith("replay:"):
        name = PurePath(status.source.removeprefix("replay:")).name
        ended = ", which has ended" if status.producer.state == "ended" else ""
        return Notice("▶", "warn", "REPLAY", f"of the recording {name}{ended}")
    return Notice("●", "good", "LIVE", "from Binance")


def freshness_notice(status: Status | None, market: Market | None, now: float) -> Notice:
    """How far the charts go, and whether that is too long ago. `now`: seconds since the epoch."""
    if status is None:
        return Notice("◐", "soon", "Reading…")
    newest = market.last_price if market else None
    stopped = stack_is_stopped(status)
    if newest is None:
        return Notice("○", "warn", "Nothing yet", "the stack is stopped" if stopped else "no prices are stored so far")
    age = max(0.0, now - newest[0] / 1_000)
    time = _time_text(newest[0] / 1_000, now)
    told = f"Data until {time} UTC, {age_text(age)} ago"
    if stopped:
        return Notice("■", "bad", told, "the stack is stopped")
    replayed = bool(status.source and status.source.startswith("replay:"))
    if age > STALE_SECONDS and not replayed:
        return Notice("▲", "bad", told, "stale: nothing newer has been stored")
    return Notice("●", "good", told)


def stack_is_stopped(status: Status) -> bool:
    """Whether neither the producer nor any stream is alive."""
    streams = any(stream.pid is not None for stream in status.streams.values())
    return not streams and status.producer.state not in ("running", "waiting")


def notice(shown: Notice) -> Component:
    """A notice as the page shows it."""
    return html.P(
        [
            html.Span(shown.sign, className="sign", **_UNSPOKEN),
            html.Strong(shown.text),
            *([html.Span(f" · {shown.detail}", className="detail")] if shown.detail else []),
        ],
        className=f"notice {shown.tone}",
    )


def elsewhere(status: Status | None) -> list[Component]:
    """Where else to look."""
    if status is None or status.dagster_url is None:
        return []
    return [html.A("Dagster", href=status.dagster_url, target="_blank", rel="noopener noreferrer")]


def numbers(market: Market | None, view: View) -> list[Component]:
    """The newest stored numbers: price, average, deviation, z-score, each with its name."""
    position = list(WINDOWS).index(view.window)
    price = average = deviation = z_score = None
    if market is not None:
        price = market.last_price[1] if market.last_price else None
        if len(market.statistics.times):
            average = _known(market.statistics.values[position, -1])
            deviation = _known(market.statistics.values[len(WINDOWS) + position, -1])
        scores = market.scores[view.window]
        z_score = _known(scores.values[0, -1]) if len(scores.times) else None
    told = (
        ("price", price_text(price)),
        (f"average {view.window}", price_text(average)),
        (f"σ {view.window}", price_text(deviation)),
        (f"z-score {view.window}", "–" if z_score is None else f"{z_score:+.2f}"),
    )
    return [html.Div([html.Dt(name), html.Dd(value)]) for name, value in told]


def streams_table(status: Status | None, now: float) -> Component:
    """The producer and the streams: state, what waits for each, how far it is."""
    head = html.Thead(
        html.Tr(
            [
                html.Th("stream", scope="col"),
                html.Th("health", scope="col"),
                html.Th("lag", scope="col", title="messages on its input topics that it has not processed"),
                html.Th("unsaved", scope="col", title="results that are published and not in its tables yet"),
                html.Th("last tick, UTC", scope="col"),
            ]
        )
    )
    if status is None:
        return html.Table([head])
    producer = status.producer
    rows = [_row("producer", producer.state, None, None, producer.last_timestamp, now)]
    rows += [
        _row(name, stream.state, stream.lag, stream.archive_lag, stream.last_event_time, now)
        for name, stream in status.streams.items()
    ]
    return html.Table([head, html.Tbody(rows)])


def _row(name: str, state: str, lag: int | None, unsaved: int | None, last_tick: str | None, now: float) -> Component:
    sign, tone = _SIGNS.get(state, ("?", "warn"))
    seconds = None if last_tick is None else datetime.datetime.fromisoformat(last_tick).timestamp()
    return html.Tr(
        [
            html.Th(name, scope="row"),
            html.Td([html.Span(sign, className="sign", **_UNSPOKEN), state.replace("_", " ")], className=tone),
            html.Td(_count_text(lag), className="number"),
            html.Td(_count_text(unsaved), className="number"),
            html.Td("–" if seconds is None else _time_text(seconds, now), className="number"),
        ]
    )


def alerts_list(alerts: Sequence[Alert], now: float) -> Component:
    """The latest alerts, newest first."""
    if not alerts:
        return html.P("No alerts so far.", className="nothing")
    return html.Ul([_alert(alert, now) for alert in alerts])


def _alert(alert: Alert, now: float) -> Component:
    raised = alert.state == "raised"
    return html.Li(
        [
            html.Span("▲" if raised else "✓", className="sign", **_UNSPOKEN),
            html.Span(
                [
                    html.Strong(f"{alert.state}: "),
                    alert.title,
                    *([html.Span(alert.detail, className="detail")] if alert.detail else []),
                ],
                className="what",
            ),
            html.Time(f"{_time_text(alert.at.timestamp(), now)} UTC", dateTime=alert.at.isoformat()),
        ],
        className="bad" if raised else "good",
    )


def problems_list(problems: Sequence[str], status: Status | None) -> list[Component]:
    """What could not be looked at, and why streams are down."""
    told = [*problems]
    if status is not None:
        told += [
            f"{name}: {stream.error.splitlines()[0]}"
            for name, stream in status.streams.items()
            if stream.error and stream.state != "running"
        ]
        note = status.producer.error or status.producer.note
        told += [f"producer: {note}"] if note else []
    return [html.P([html.Span("▲", className="sign", **_UNSPOKEN), text]) for text in told]


def age_text(seconds: float) -> str:
    """`48 s`, `5 min`, `3 h` or `12 days`."""
    for least, unit in ((172_800, 86_400), (7_200, 3_600), (120, 60)):
        if seconds >= least:
            return f"{seconds // unit:.0f} {_UNITS[unit]}"
    return f"{seconds:.0f} s"


_UNITS: Mapping[int, str] = {86_400: "days", 3_600: "h", 60: "min"}


def price_text(value: float | None) -> str:
    """With separators, and seven digits or two decimals, whichever is more."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    decimals = max(2, 6 - len(f"{abs(value):.0f}"))
    if abs(value) < 1:
        # As many as show four digits, but no more than prices have.
        decimals = min(8, 4 - _leading_power(value))
    return f"{value:,.{decimals}f}"


def _leading_power(value: float) -> int:
    return int(f"{value:e}".partition("e")[2]) + 1


def _known(value: Any) -> float | None:
    return None if value != value else float(value)


def _count_text(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _time_text(seconds: float, now: float) -> str:
    """The time of day, with the date when that is not today's."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%F %H:%M:%S}"
