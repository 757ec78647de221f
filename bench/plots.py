"""Pictures of the results: throughput and delay by contestant, cost against window length and symbols."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

from bench.rates import is_correct, rate_of
from bench.systems import CONTESTANTS, MOVING, PROJECT

_OURS, _RIGHT, _OTHER = "tab:blue", "tab:green", "lightgrey"


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all pictures for which there are results; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_throughput(results, folder), _delay(results, folder)]
    if results.get("curves"):
        drawn += [_windows(results, folder), _symbols(results, folder)]
    return [path for path in drawn if path is not None]


def _throughput(results: Mapping[str, Any], folder: Path) -> Path | None:
    base = results["base"]
    rates = {name: rate_of(result, base) for name, result in results["contestants"].items()}
    return _bars(
        results,
        {name: rate for name, rate in rates.items() if rate is not None},
        f"Backlog, {base} symbols: ticks a second (logarithmic)",
        folder / "throughput.png",
    )


def _delay(results: Mapping[str, Any], folder: Path) -> Path | None:
    delays = {
        name: result["live"]["delay"]["p99"]
        for name, result in results["contestants"].items()
        if "p99" in result.get("live", {}).get("delay", {}) and result["live"]["delay"]["p99"] > 0
    }
    return _bars(
        results, delays, "Live: 99th percentile of the delay beyond the lateness, s (logarithmic)", folder / "delay.png"
    )


def _bars(results: Mapping[str, Any], values: Mapping[str, float], title: str, path: Path) -> Path | None:
    if not values:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.5 * len(values)), layout="constrained")
    names = sorted(values, key=lambda name: values[name])
    colours = [_colour(name, results["contestants"][name]) for name in names]
    bars = axes.barh([CONTESTANTS[name].title for name in names], [values[name] for name in names], color=colours)
    axes.bar_label(bars, [f"{values[name]:,.3g}" if values[name] < 100 else f"{values[name]:,.0f}" for name in names])
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_title(f"{title}\nblue: this project; green: all results right; grey: not all right", fontsize=9)
    return _saved(figure, path)


def _colour(name: str, result: Mapping[str, Any]) -> str:
    if CONTESTANTS[name].of_project:
        return _OURS
    return _RIGHT if is_correct(result) else _OTHER


def _windows(results: Mapping[str, Any], folder: Path) -> Path:
    rows = results["curves"]["windows"]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    hours = [row["hours"] for row in rows]
    for key, label in (("backlog_microseconds", "backlog"), ("live_microseconds", "live micro-batches of 20 ticks")):
        axes.plot(hours, [row[key] for row in rows], marker="o", label=label)
    axes.set(
        xlabel="longest window, h", ylabel="µs a tick", ylim=(0, None), title="Kernels: cost against window length"
    )
    axes.legend()
    return _saved(figure, folder / "windows.png")


def _symbols(results: Mapping[str, Any], folder: Path) -> Path:
    rows = results["curves"]["symbols"]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([row["symbols"] for row in rows], [row["microseconds"] for row in rows], marker="o", label="kernels")
    for name in (PROJECT, MOVING, *(other for other in CONTESTANTS if other not in (PROJECT, MOVING))):
        result = results["contestants"].get(name, {})
        points = [
            (int(scenario), 1e6 / rate)
            for scenario in results["scenarios"]
            if (rate := rate_of(result, scenario)) is not None
        ]
        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), marker="o", label=CONTESTANTS[name].title)
    axes.set(xscale="log", yscale="log", xlabel="symbols", ylabel="µs a tick", title="Cost against symbols")
    axes.legend(fontsize=8)
    return _saved(figure, folder / "symbols.png")


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
