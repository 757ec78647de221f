"""The page: what is where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from orchestration.board.view import DEFAULT_SPAN, DEFAULT_WINDOW, SPAN_LABELS
from tickhouse.contract.names import WINDOWS

TITLE = "tickhouse board"
UPDATE_MILLISECONDS = 2_000
CHARTS = ("price", "scores", "waits")
_GRAPH: Any = {
    "displayModeBar": False,
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": False,
    "doubleClick": "autosize",
}


def layout(symbols: Sequence[str]) -> Component:
    """The page before it has any data. `symbols`: those known, at least one."""
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Interval(id="tick", interval=UPDATE_MILLISECONDS),
            dcc.Store(id="theme", data="light"),
            dcc.Store(id="seen"),
            dcc.Store(id="zoom"),
            html.Header(
                [
                    html.Div(
                        [
                            html.H1("tickhouse"),
                            html.Div(id="elsewhere"),
                            html.Div(id="source", role="status"),
                            html.Div(id="freshness"),
                        ],
                        className="says",
                    ),
                    html.Div(
                        [
                            _symbol_picker(symbols),
                            _picker("window", "Window", {window: window for window in WINDOWS}, DEFAULT_WINDOW),
                            _picker("span", "Show", SPAN_LABELS, DEFAULT_SPAN),
                        ],
                        className="pickers",
                    ),
                    html.Div(id="problems", role="alert"),
                ]
            ),
            html.Main(
                [
                    _chart("price", "Price, moving average and ±2σ", html.Dl(id="newest"), html.Dl(id="numbers")),
                    _chart("scores", "z-scores of all windows", html.P("lines at ±2 and ±3")),
                    _chart("waits", "Seconds to the next higher and lower price", html.P("20 s: none within 20 s")),
                    _card("streams", "Streams", html.P("lag and unsaved in messages")),
                    _card("alerts", "Latest alerts"),
                ]
            ),
        ],
        className="board",
    )


def symbol_options(symbols: Sequence[str]) -> list[dict[str, str]]:
    """What the symbol picker offers."""
    return [{"label": symbol, "value": symbol} for symbol in symbols]


def _symbol_picker(symbols: Sequence[str]) -> Component:
    return html.Div(
        [
            html.Label("Symbol", htmlFor="symbol", id="symbol-label"),
            dcc.Dropdown(
                id="symbol", options=symbol_options(symbols), value=symbols[0], clearable=False, searchable=False
            ),
        ],
        className="picker",
    )


def _picker(name: str, label: str, choices: dict[str, str], chosen: str) -> Component:
    return html.Div(
        [
            html.Span(label, id=f"{name}-label"),
            html.Div(
                dcc.RadioItems(
                    id=name, options=[{"label": text, "value": value} for value, text in choices.items()], value=chosen
                ),
                role="radiogroup",
                **_labelled_by(f"{name}-label"),
            ),
        ],
        className="picker",
    )


def _chart(name: str, title: str, *beside: Component) -> Component:
    return html.Section(
        [
            html.Div([html.H2(title, id=f"{name}-title"), *beside], className="head"),
            # The height is the section's: a chart that knows it before it is drawn does not jump.
            html.Div(
                dcc.Graph(id=name, config=_GRAPH, style={"height": "100%"}, responsive=True),
                className="chart",
                role="img",
                **_labelled_by(f"{name}-title"),
            ),
        ],
        className=f"card {name}",
    )


def _card(name: str, title: str, *beside: Component) -> Component:
    return html.Section(
        [html.Div([html.H2(title), *beside], className="head"), html.Div(id=name, className="body")],
        className=f"card {name}",
    )


def _labelled_by(identifier: str) -> dict[str, Any]:
    return {"aria-labelledby": identifier}
