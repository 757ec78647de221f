"""What the page says in words: where prices come from, how old they are, how the streams are, what went wrong.

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

from orchestration.board.market import Market
from orchestration.board.view import View
from orchestration.monitoring.alert_log import Alert
from orchestration.monitoring.status import Status

STALE_SECONDS = 90
"""Tables get a commit every 20 s, and one that is slow is not yet a reason to worry."""
_EXPECTED_SECONDS = {"bands": 50, "z-scores": 70, "higher/lower": 70}
"""How far each result may end before prices, beside the lateness: 20 s for the commit, another 20 s for the load of
z-scores and for the higher and lower prices to come, and 30 s for a machine that is slow."""
_AWAY = "because Binance does not answer"
"""What the stack notes when it has chosen the simulator by itself; the error of the network follows."""
DAGSTER_GROUPS = ("ingest", "streams", "mongodb")
"""Of the asset graph, which opens with its groups closed unless its address names them."""
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
    "suspended": ("✖", "bad"),
    "unknown": ("✖", "bad"),
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
    full: str = ""
    """What the detail is short for, shown to who points at it."""


def source_notice(status: Status | None) -> Notice:
    """Where the prices come from; that they are made up is said before anything else."""
    if status is None or status.source is None:
        return Notice("○", "rest", "NO SOURCE", "nothing was started in this home yet")
    if status.source == "simulator":
        note = (status.source_note or "").removeprefix("SIMULATED ")
        short, away, _ = note.partition(_AWAY)
        return Notice(
            "◆", "warn", "SIMULATED PRICES", "Binance cannot be reached" if away else short, note if away else ""
        )
    if status.source.startswith("replay:"):
        name = PurePath(status.source.removeprefix("replay:")).name
        ended = ", which has ended" if status.producer.state == "ended" else ""
        return Notice("▶", "warn", "REPLAY", f"of the recording {name}{ended}")
    return Notice("●", "good", "LIVE", "from Binance")


def freshness_notice(status: Status | None, market: Market | None, now: float, lateness: float) -> Notice:
    """How far each part of the charts goes, and whether that is too long ago, or too far behind the prices.

    `now`: seconds since the epoch; `lateness` in seconds.
    """
    if status is None:
        return Notice("◐", "soon", "Reading…")
    stopped = stack_is_stopped(status)
    if market is None or market.last_price is None:
        return Notice("○", "warn", "Nothing yet", "the stack is stopped" if stopped else "no prices are stored so far")
    end = market.last_price[0] / 1_000
    age = max(0.0, now - end)
    told = f"Prices until {_time_text(end, now)} UTC, {age_text(age)} ago"
    if stopped:
        return Notice("■", "bad", told, "the stack is stopped")
    replayed = bool(status.source and status.source.startswith("replay:"))
    if age > STALE_SECONDS and not replayed:
        return Notice("▲", "bad", told, "stale: nothing newer has been stored")
    ages, slow = [], False
    for result, until in market.ends.items():
        # Of what is not there at all, the wait began with the prices.
        lag = end - (int(market.prices.times[0]) if until is None else until) / 1_000
        # A recording may be replayed at any speed: its times say nothing about how long results take.
        behind = not replayed and lag > lateness + _EXPECTED_SECONDS[result]
        since = "none" if until is None else age_text(max(0.0, now - until / 1_000))
        ages.append(f"{result} {since}{', behind' if behind else ''}")
        slow |= behind
    return Notice("▲" if slow else "●", "warn" if slow else "good", told, " · ".join(ages))


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
        title=shown.full,
    )


def elsewhere(status: Status | None) -> list[Component]:
    """Where else to look."""
    if status is None or status.dagster_url is None:
        return []
    return [html.A("Dagster", href=graph_url(status.dagster_url), target="_blank", rel="noopener noreferrer")]


def graph_url(dagster_url: str) -> str:
    """Dagster's page of all assets, its groups open."""
    return f"{dagster_url}/asset-groups?expanded=" + ",".join(f"global@global:{group}" for group in DAGSTER_GROUPS)


def numbers(market: Market | None, view: View, now: float) -> list[Component]:
    """Price, average, deviation and z-score of one tick, the newest of which all are stored, after its time."""
    reading = market.reading(view.window) if market else None
    time, *known = (None,) * 5 if reading is None else (reading.time, *map(_known, reading[1:]))
    price, average, deviation, z_score = known
    when = [] if time is None else [("tick of", html.Time(f"{_time_text(time / 1_000, now, exact=True)} UTC"))]
    return _terms(
        *when,
        ("price", price_text(price)),
        (f"average {view.window}", price_text(average)),
        (f"σ {view.window}", price_text(deviation)),
        (f"z-score {view.window}", "–" if z_score is None else f"{z_score:+.2f}"),
    )


def newest(market: Market | None, now: float) -> list[Component]:
    """The newest price, which is newer than any tick of which there are results."""
    price = market.last_price if market else None
    if price is None:
        return []
    return _terms((f"newest price, {_time_text(price[0] / 1_000, now, exact=True)} UTC", price_text(price[1])))


def _terms(*told: tuple[str, str | Component]) -> list[Component]:
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


def _time_text(seconds: float, now: float, *, exact: bool = False) -> str:
    """The time of day, with the date when that is not today's, and to the millisecond when it names a tick."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
    day = "" if moment.date() == today else f"{moment:%F} "
    return f"{day}{moment.time().isoformat('milliseconds' if exact else 'seconds')}"
