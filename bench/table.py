"""The results as people read them: tables, and the last line with this project's ratios to the best correct peer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.rates import best_correct, is_correct, rate_of, ratio
from bench.systems import CONTESTANTS, MOVING, PEER_NAMES, PROJECT, USUAL

Results = Mapping[str, Any]
_MISSING = "–"


def show(results: Results, console: Console) -> None:
    """Print everything; the ratios last."""
    console.print(comparison(results))
    if results.get("limits"):
        console.print(limits(results))
    if results.get("curves"):
        for table in curves(results):
            console.print(table)
    for line in (*answers(results), *further(results)):
        console.print(line, highlight=False)
    console.print(last_line(results), highlight=False)


def comparison(results: Results) -> Table:
    """One row for each contestant."""
    scenarios = results["scenarios"]
    table = Table(title="Side by side: the same ticks, the same machine, one run", show_lines=False)
    table.add_column("contestant")
    table.add_column("right of what\nit was asked", justify="right")
    table.add_column("delivery")
    for scenario in scenarios:
        table.add_column(f"drain, ticks/s\n{scenario} symbols", justify="right")
    table.add_column("CPU s per\nmillion ticks", justify="right")
    table.add_column("delay beyond\nlateness, s\np50 / p99 / max", justify="right")
    table.add_column("live:\ncores", justify="right")
    table.add_column("peak MB\ndrain / live", justify="right")
    for name, contestant in CONTESTANTS.items():
        result = results["contestants"].get(name)
        if result is None:
            continue
        drain = result.get("drain", {})
        base = drain.get(results["base"], {})
        live = result.get("live", {})
        row = [contestant.title, share_text(result), contestant.delivery]
        row += [number_text(drain.get(scenario, {}).get("rate")) for scenario in scenarios]
        row += [number_text(base.get("cpu_seconds_per_million")), delay_text(live), number_text(live.get("cores"))]
        row.append(f"{number_text(base.get('peak_megabytes'))} / {number_text(live.get('peak_megabytes'))}")
        table.add_row(*row, style="bold" if contestant.of_project else "")
    return table


def share_text(result: Results) -> str:
    """What part of a contestant's results is right."""
    if "unavailable" in result:
        return "not run"
    correctness = result.get("correctness")
    if not correctness:
        return _MISSING
    if is_correct(result):
        return "all"
    return f"{100 * correctness['share']:.1f} %"


def delay_text(live: Results) -> str:
    """Median, 99th percentile and largest delay."""
    delay = live.get("delay", {})
    if "p50" not in delay:
        return _MISSING
    return " / ".join(f"{delay[name]:.2f}" for name in ("p50", "p99", "max"))


def limits(results: Results) -> Table:
    """What no stream can be faster than here."""
    table = Table(title=f"Limits, {results['base']} symbols")
    table.add_column("what")
    table.add_column("ticks/s", justify="right")
    for name, rate in results["limits"].items():
        table.add_row(name, number_text(rate))
    return table


def curves(results: Results) -> list[Table]:
    """Cost against window length and symbols."""
    windows = Table(title="This project's kernels against the longest window")
    for name in ("longest window, h", "backlog, µs a tick", "live, µs a tick", "state, bytes a symbol"):
        windows.add_column(name, justify="right")
    for row in results["curves"]["windows"]:
        windows.add_row(
            *(number_text(row[key]) for key in ("hours", "backlog_microseconds", "live_microseconds", "state_bytes"))
        )
    symbols = Table(title="Cost of a tick against symbols, µs")
    for name in ("symbols", "kernels", "`moving` alone", "three streams"):
        symbols.add_column(name, justify="right")
    for row in results["curves"]["symbols"]:
        costs = [_cost(results, name, str(row["symbols"])) for name in (MOVING, PROJECT)]
        symbols.add_row(number_text(row["symbols"]), number_text(row["microseconds"]), *map(number_text, costs))
    return [windows, symbols]


def _cost(results: Results, name: str, scenario: str) -> float | None:
    rate = rate_of(results["contestants"].get(name, {}), scenario)
    return None if rate is None else 1e6 / rate


def answers(results: Results) -> list[str]:
    """A line for each contestant that does not give what the contract owes, could not be run, or failed."""
    lines = []
    for name, contestant in CONTESTANTS.items():
        result = results["contestants"].get(name, {})
        if "unavailable" in result:
            lines.append(f"{contestant.title} was not run: {result['unavailable']}")
            continue
        if contestant.gives and "correctness" in result:
            lines.append(f"{contestant.title} gives {contestant.gives}.")
        elif "correctness" in result and not is_correct(result):
            lines.append(f"{contestant.title}: {correctness_text(result['correctness'])}")
        parts = {"correctness": result.get("correctness", {}), "live": result.get("live", {})}
        parts |= {f"drain of {scenario} symbols": drain for scenario, drain in result.get("drain", {}).items()}
        lines += [
            f"{contestant.title}, {part}: {figures['failure']}"
            for part, figures in parts.items()
            if "failure" in figures
        ]
    return lines


def further(results: Results) -> list[str]:
    """What is measured of this project alone, and how it compares to the usual way by right results."""
    lines = []
    project = results["contestants"].get(PROJECT, {})
    usual = results["contestants"].get(USUAL, {})
    rates = [_right_per_second(result, results["base"]) for result in (project, usual)]
    if (times := ratio(*rates)) is not None:
        lines.append(
            f"By right results a second, of those that the contract owes, this project gives {times:,.0f} times what "
            f"{CONTESTANTS[USUAL].title} gives."
        )
    for part, figures in project.items():
        if part.startswith("live_") and "delay" in figures:
            pace = "kept up" if figures["kept_up"] else "did not keep up"
            lines.append(
                f"Live, {figures['symbols']:,} symbols, {figures['ticks_per_second']:,.0f} ticks/s: {pace}, delay "
                f"{delay_text(figures)} s (p50 / p99 / max), {number_text(figures['cores'])} cores, "
                f"{number_text(figures['peak_megabytes'])} MB."
            )
    if ages := results.get("recovery"):
        told = ", ".join(
            f"{number_text(age['seconds'])} s after {number_text(age['hours'])} h of ticks" for age in ages
        )
        lines.append(f"From the start of a killed `moving` to its first new result: {told}.")
    if loaded := results.get("load"):
        lines.append(
            f"MongoDB load in catch-up: {number_text(loaded['documents_per_second'])} documents/s; bare inserts of the "
            f"same documents: {number_text(loaded['server_documents_per_second'])}."
        )
    return lines


def _right_per_second(result: Results, scenario: str) -> float | None:
    rate, share = rate_of(result, scenario), result.get("correctness", {}).get("share")
    return None if rate is None or share is None else rate * share


def correctness_text(correctness: Results) -> str:
    """What is wrong with a contestant's results, in a sentence."""
    told = [
        f"{correctness[kind]:,} {kind} (such as {correctness['examples'][kind]})"
        for kind in ("missing", "wrong", "unexpected", "duplicate")
        if correctness.get(kind)
    ]
    return f"of {correctness.get('owed', 0):,} results owed {', '.join(told) or 'none could be judged'}"


def last_line(results: Results) -> str:
    """This project's ratios to the best correct peer."""
    contestants, base = results["contestants"], results["base"]
    best = best_correct(contestants, PEER_NAMES, base)
    if best is None:
        return f"Ratios at {base} symbols: no peer gave all results right and was measured."
    told = []
    for name, what in ((PROJECT, "three streams at once"), (MOVING, "`moving` alone")):
        number = ratio(rate_of(contestants.get(name, {}), base), rate_of(contestants[best], base))
        told.append(f"{what} {_MISSING if number is None else f'{number:.2f}'}")
    delays = [contestants.get(name, {}).get("live", {}).get("delay", {}).get("p50") for name in (PROJECT, best)]
    delay = ratio(delays[0], delays[1])
    return (
        f"Ratios at {base} symbols to the best correct peer ({CONTESTANTS[best].title}): "
        f"throughput of {', of '.join(told)}; median delay {_MISSING if delay is None else f'{delay:.2f}'}"
    )


def number_text(value: float | None) -> str:
    """A number to three digits or so; a dash for what is not known."""
    if value is None:
        return _MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
