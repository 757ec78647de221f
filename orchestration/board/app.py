"""The board as a web application."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from wsgiref.types import WSGIApplication

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from plotly.io.json import config as json_config

from orchestration.board import figures, page, panels
from orchestration.board.guard import Guard
from orchestration.board.view import Theme, View, view_of, view_of_search
from orchestration.board.watcher import Watcher

_INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        {%favicon%}
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <footer>{%config%}{%scripts%}{%renderer%}</footer>
        <noscript>This page needs JavaScript. The same is told by: tickhouse status</noscript>
    </body>
</html>
"""


def make_application(watcher: Watcher) -> WSGIApplication:
    """The application. `watcher` must be running while it is asked."""
    # Plain JSON: the other engine, where it is installed, looks at every number in Python, and imports pandas for it.
    json_config.default_engine = "json"
    app = Dash(
        "orchestration.board",
        title=page.TITLE,
        update_title="",
        serve_locally=True,
        compress=False,
        enable_mcp=False,
        index_string=_INDEX,
        meta_tags=[{"name": "color-scheme", "content": "light dark"}],
    )
    app.layout = lambda: page.layout(watcher.symbols)
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("board", "theme"), Output("theme", "data"), Input("address", "pathname")
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("board", "zoom"),
        Output("zoom", "data"),
        *(Input(chart, "relayoutData") for chart in page.CHARTS),
        Input("symbol", "value"),
        Input("span", "value"),
    )
    _follow_pickers(app, watcher)
    _answer(app, watcher)
    return Guard(app.server, app.csp_hashes())


def _follow_pickers(app: Dash, watcher: Watcher) -> None:
    @app.callback(
        # With its options: a picker that is given a value before it has the option for it drops the value.
        Output("symbol", "options", allow_duplicate=True),
        Output("symbol", "value"),
        Output("window", "value"),
        Output("span", "value"),
        Output("address", "search"),
        Input("address", "search"),
        Input("symbol", "value"),
        Input("window", "value"),
        Input("span", "value"),
        State("symbol", "options"),
        prevent_initial_call="initial_duplicate",
    )
    def follow(search: Any, symbol: Any, window: Any, span: Any, options: Any) -> tuple[Any, ...]:
        """Pickers and address say the same: the one follows the other, whichever was changed."""
        if ctx.triggered_id in (None, "address"):
            view = view_of_search(search, watcher.symbols)
        else:
            view = view_of(symbol, window, span, watcher.symbols)
        offered = page.symbol_options(_offered(watcher.symbols, view))
        wanted = (offered, view.symbol, view.window, view.span, view.search)
        told = (options, symbol, window, span, search)
        return tuple(no_update if was == new else new for was, new in zip(told, wanted, strict=True))


def _answer(app: Dash, watcher: Watcher) -> None:
    @app.callback(
        Output("price", "figure"),
        Output("scores", "figure"),
        Output("waits", "figure"),
        Output("numbers", "children"),
        Output("newest", "children"),
        Output("seen", "data"),
        Output("symbol", "options"),
        Output("source", "children"),
        Output("freshness", "children"),
        Output("elsewhere", "children"),
        Output("problems", "children"),
        Output("streams", "children"),
        Output("alerts", "children"),
        Input("tick", "n_intervals"),
        Input("symbol", "value"),
        Input("window", "value"),
        Input("span", "value"),
        Input("theme", "data"),
        Input("zoom", "data"),
        State("seen", "data"),
    )
    def answer(_tick: Any, symbol: Any, window: Any, span: Any, theme: Any, zoom: Any, seen: Any) -> tuple[Any, ...]:
        """Everything that has changed since the page saw `seen`."""
        now = time.time()
        view = view_of(symbol, window, span, watcher.symbols, zoom)
        shade: Theme = "dark" if theme == "dark" else "light"
        sight = watcher.look(view.symbol, view.span_ms)
        market = sight.markets.get((view.symbol, view.span_ms))
        symbols = _offered(sight.symbols, view)
        news: dict[str, Any] = {"charts": f"{view} {shade} {market.token if market else None}", "symbols": symbols}
        before = seen if isinstance(seen, dict) else {}
        charts: tuple[Any, ...] = (no_update,) * 5
        # Until a known symbol has been read the charts stay: they would say for a moment that there is nothing.
        if market is None and view.symbol in sight.symbols:
            news["charts"] = before.get("charts")
        if before.get("charts") != news["charts"]:
            charts = (
                figures.price_figure(market, view, shade),
                figures.scores_figure(market, view, shade),
                figures.waits_figure(market, view, shade),
                panels.numbers(market, view, now),
                panels.newest(market, now),
            )
        words = (
            panels.notice(panels.source_notice(sight.status)),
            panels.notice(panels.freshness_notice(sight.status, market, now, sight.lateness_seconds)),
            panels.elsewhere(sight.status),
            panels.problems_list(sight.problems, sight.status),
            panels.streams_table(sight.status, now),
            panels.alerts_list(sight.alerts, now),
        )
        return (
            *charts,
            no_update if news == before else news,
            no_update if before.get("symbols") == news["symbols"] else page.symbol_options(symbols),
            *words,
        )


def _offered(symbols: Sequence[str], view: View) -> list[str]:
    """The symbols to choose from. One that somebody asks for is offered, though nothing may be known of it."""
    return list(dict.fromkeys((*symbols, view.symbol)))
