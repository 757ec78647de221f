"""The three charts, as Plotly takes them: plain dictionaries.

Pure: no I/O.

Colours are of the Okabe-Ito palette, which the colour-blind tell apart, and no two lines differ by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from orchestration.board.downsampling import extremes, last_of_each
from orchestration.board.market import Market
from orchestration.board.rows import Rows
from orchestration.board.view import SPAN_LABELS, Theme, View
from tickhouse.contract.names import PASSAGE_HORIZON_MS, WINDOWS

Figure = dict[str, Any]

GUIDES = ((2, "dot"), (3, "dash"))
"""At which |z| lines are drawn, and how."""
_LEAST_Z, _MOST_Z = 3.6, 5.0
"""The axis of z-scores ends between these: those of the first seconds, or a leap, leave no room for the others."""
_HORIZON_SECONDS = PASSAGE_HORIZON_MS / 1_000
_POINTS_OF_WAITS = 300
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"


class _Colours(NamedTuple):
    ink: str
    faint: str
    grid: str
    surface: str
    average: str
    band: str
    higher: str
    lower: str
    windows: tuple[str, ...]


_COLOURS: dict[Theme, _Colours] = {
    "light": _Colours(
        ink="#1c2128",
        faint="#57606a",
        grid="rgba(27,31,36,0.09)",
        surface="#ffffff",
        average="#0072b2",
        band="rgba(86,180,233,0.24)",
        higher="#0072b2",
        lower="#d55e00",
        windows=("#d55e00", "#b97f00", "#009e73", "#0072b2", "#cc79a7", "#57606a"),
    ),
    "dark": _Colours(
        ink="#e6edf3",
        faint="#9aa5b1",
        grid="rgba(230,237,243,0.10)",
        surface="#161b22",
        average="#56b4e9",
        band="rgba(86,180,233,0.20)",
        higher="#56b4e9",
        lower="#e69f00",
        windows=("#ff8a3d", "#e69f00", "#2fc79a", "#56b4e9", "#e39bc4", "#9aa5b1"),
    ),
}
_DASHES = ("solid", "9px,3px", "2px,3px", "9px,3px,2px,3px", "4px,2px", "14px,2px,2px,2px")
"""By window; each shows itself within the length of a line in the legend."""
_WIDTHS = (1.1, 1.2, 1.3, 1.9, 2.7, 3.6)
"""By window: until a longer window is full its z-scores are those of a shorter one, which is drawn upon it."""


def price_figure(market: Market | None, view: View, theme: Theme) -> Figure:
    """The price with the average and average ± 2 standard deviations of the window."""
    colours = _COLOURS[theme]
    if market is None or not len(market.prices.times):
        return _empty("No prices", view, theme)
    start, end = _stretch(market, view)
    prices = extremes(market.prices.since(start), start, end)
    statistics = last_of_each(market.statistics.since(start), start, end)
    position = list(WINDOWS).index(view.window)
    average, deviation = statistics.values[position], statistics.values[len(WINDOWS) + position]
    times = statistics.times.tolist()
    band = {"type": "scatter", "mode": "lines", "x": times, "hoverinfo": "skip", "legendgroup": "band"}
    edge = {"color": colours.average, "width": 0.6}
    traces = [
        {**band, "name": "lower", "y": _numbers(average - 2 * deviation), "line": edge, "showlegend": False},
        {
            **band,
            "name": "±2σ",
            "y": _numbers(average + 2 * deviation),
            "line": edge,
            "fill": "tonexty",
            "fillcolor": colours.band,
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{view.window} average",
            "x": times,
            "y": _numbers(average),
            "line": {"color": colours.average, "width": 2, "dash": "dash"},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "price",
            "x": prices.times.tolist(),
            "y": _numbers(prices.values[0]),
            "line": {"color": colours.ink, "width": 1.4},
        },
    ]
    layout = _layout(view, theme, start, end)
    layout["yaxis"] |= {"separatethousands": True, "exponentformat": "none", "hoverformat": ",.8~f"}
    return {"data": traces, "layout": layout}


def scores_figure(market: Market | None, view: View, theme: Theme) -> Figure:
    """The z-scores of all windows, that of the picked one in front."""
    colours = _COLOURS[theme]
    if market is None or not any(len(rows.times) for rows in market.scores.values()):
        return _empty("No z-scores", view, theme)
    start, end = _stretch(market, view)
    traces, largest = [], _LEAST_Z
    beyond: list[tuple[int, float, str]] = []
    for position, window in enumerate(WINDOWS):
        picked = window == view.window
        rows = extremes(market.scores[window].since(start), start, end)
        largest = max(largest, float(np.nanmax(np.abs(rows.values[0]), initial=0.0, where=~np.isnan(rows.values[0]))))
        far = np.abs(rows.values[0]) > _MOST_Z
        beyond += [
            (time, value, colours.windows[position])
            for time, value in zip(rows.times[far].tolist(), rows.values[0][far].tolist(), strict=True)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": window,
                "x": rows.times.tolist(),
                "y": _numbers(rows.values[0]),
                "line": {
                    "color": colours.windows[position],
                    "width": 2.4 if picked else _WIDTHS[position],
                    "dash": "solid" if picked else _DASHES[position],
                },
                "opacity": 1.0 if picked else 0.6,
                "connectgaps": False,
                "zorder": len(WINDOWS) + 1 if picked else len(WINDOWS) - position,
            }
        )
    height = min(largest, _MOST_Z)
    if beyond:
        traces.append(_marks(beyond, height))
    layout = _layout(view, theme, start, end)
    # On a phone the names take two lines.
    layout["margin"]["t"] = 42
    layout["yaxis"] |= {"range": [-1.08 * height, 1.08 * height], "hoverformat": "+.2f", "zeroline": True}
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": sign * height,
            "y1": sign * height,
            "line": {"color": colours.faint, "width": 1, "dash": dash},
            "layer": "below",
        }
        for height, dash in GUIDES
        for sign in (-1, 1)
    ]
    return {"data": traces, "layout": layout}


def _marks(beyond: Sequence[tuple[int, float, str]], height: float) -> Figure:
    """Marks at the edges of the axis for those z-scores (time, value, colour) that are beyond it."""
    times, values, colours = zip(*beyond, strict=True)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"beyond ±{_MOST_Z:g}",
        "x": list(times),
        "y": [math.copysign(height, value) for value in values],
        "marker": {
            "color": list(colours),
            "size": 7,
            "symbol": ["triangle-up" if value > 0 else "triangle-down" for value in values],
        },
        # The lines tell the values.
        "hoverinfo": "skip",
    }


def waits_figure(market: Market | None, view: View, theme: Theme) -> Figure:
    """The seconds from each tick to the next higher and the next lower price."""
    colours = _COLOURS[theme]
    if market is None or not (len(market.higher.times) or len(market.lower.times)):
        return _empty("No higher and lower times", view, theme)
    start, end = _stretch(market, view)
    halves = (
        ("higher", market.higher, colours.higher, "triangle-up", "y"),
        ("lower", market.lower, colours.lower, "triangle-down", "y2"),
    )
    traces = []
    for name, rows, colour, shape, axis in halves:
        drawn: Rows = last_of_each(rows.since(start), start, end, _POINTS_OF_WAITS)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": drawn.times.tolist(),
                "y": _numbers(drawn.values[0]),
                "yaxis": axis,
                "marker": {"color": colour, "size": 5, "symbol": shape, "opacity": 0.8},
            }
        )
    layout = _layout(view, theme, start, end)
    # Mirrored, because both are often the same few values: higher upwards, lower downwards.
    layout["yaxis"] |= {
        "ticksuffix": " s",
        "hoverformat": ".1f",
        "tickmode": "array",
        "zeroline": True,
    }
    longest = _HORIZON_SECONDS + 1.5
    layout["yaxis2"] = layout["yaxis"] | {"domain": [0, 0.49], "range": [longest, 0], **_ticks(10, 20)}
    layout["yaxis"] |= {"domain": [0.51, 1], "range": [0, longest], **_ticks(0, 10, 20)}
    layout["xaxis"]["anchor"] = "y2"
    return {"data": traces, "layout": layout}


def _ticks(*seconds: int) -> Figure:
    """Labels of an axis of seconds. In words: of values alone Plotly makes labels of another form than of steps."""
    return {"tickvals": list(seconds), "ticktext": [f"{value} s" for value in seconds]}


def _stretch(market: Market, view: View) -> tuple[int, int]:
    """First and last millisecond of what is picked: it ends with the newest that there is."""
    return market.end - view.span_ms, market.end


def _numbers(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if value != value else value for value in values.tolist()]


def _layout(view: View, theme: Theme, start: int, end: int) -> Figure:
    colours = _COLOURS[theme]
    axis = {
        "gridcolor": colours.grid,
        "zerolinecolor": colours.faint,
        "zerolinewidth": 1,
        "zeroline": False,
        "linecolor": colours.grid,
        "tickfont": {"size": 11},
    }
    return {
        "autosize": True,
        # The same for all, so that the same moment is at the same place in charts above each other.
        "margin": {"l": 6, "r": 68, "t": 28, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": colours.faint},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 11},
        },
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": colours.surface,
            "bordercolor": colours.grid,
            "font": {"color": colours.ink, "family": _FONT},
        },
        "dragmode": "zoom",
        # What the reader has switched off in a legend stays off.
        "uirevision": f"{view.symbol} {view.span}",
        "xaxis": {
            **axis,
            "type": "date",
            "range": list(view.zoom or (start, end)),
            # A zoom is part of the view, so the range is never the chart's own business.
            "uirevision": f"{view.zoom or (start, end)}",
            "hoverformat": "%H:%M:%S.%L",
            "tickformatstops": [
                {"dtickrange": [None, 60_000], "value": "%H:%M:%S"},
                {"dtickrange": [60_000, None], "value": "%H:%M"},
            ],
            "nticks": 8,
        },
        # Time alone is zoomed into: the heights follow from what is seen.
        "yaxis": {**axis, "side": "right", "nticks": 7, "fixedrange": True},
    }


def _empty(what: str, view: View, theme: Theme) -> Figure:
    """Says plainly that there is nothing."""
    hidden = {"visible": False, "fixedrange": True}
    text = f"{what} of {view.symbol}<br>in the newest {SPAN_LABELS[view.span]} of the tables"
    return {
        "data": [],
        "layout": _layout(view, theme, 0, 1)
        | {
            "xaxis": hidden,
            "yaxis": hidden,
            "annotations": [
                {
                    "text": text,
                    "showarrow": False,
                    "xref": "paper",
                    "yref": "paper",
                    "x": 0.5,
                    "y": 0.5,
                    "font": {"size": 14, "color": _COLOURS[theme].faint},
                }
            ],
        },
    }
