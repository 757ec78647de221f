"""Fills the figures in `docs/performance.md` from `bench/results/latest.json`: `python -m bench.document`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.systems import CONTESTANTS, MOVING, PROJECT
from bench.table import answers, delay_text, further, last_line, number_text, share_text
from orchestration.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "performance.md"
_RESULTS = PROJECT_ROOT / "bench" / "results" / "latest.json"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, results: Mapping[str, Any]) -> str:
    """The page with the figures of these results between its markers. Raises KeyError for a marker without figures."""
    blocks = {
        "run": _run,
        "comparison": _comparison,
        "answers": _answers,
        "limits": _limits,
        "windows": _windows,
        "symbols": _symbols,
        "further": _further,
    }
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]](results).strip()}\n{found[3]}", page)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _picture(text: str, name: str) -> str:
    return f"\n\n![{text}](../bench/results/{name}.png)"


def _run(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    kind = "quick run" if results["quick"] else "run"
    return (
        f"Figures of a {kind} on {results['made'][:10]}: {machine['cores']} cores, {machine['memory_gigabytes']} GB, "
        f"Python {machine['python']}; load average before it {machine['load_before']}; "
        f"{results.get('minutes', 0)} minutes.\n\n{last_line(results)}"
    )


def _comparison(results: Mapping[str, Any]) -> str:
    head = ["contestant", "asked for", "right", "delivery"]
    head += [f"drain, {scenario} symbols, ticks/s" for scenario in results["scenarios"]]
    head += ["CPU s per million ticks", "peak MB", "delay p50 / p99 / max, s", "cores, live"]
    rows = []
    for name, contestant in CONTESTANTS.items():
        result = results["contestants"].get(name)
        if result is None:
            continue
        drain, live = result.get("drain", {}), result.get("live", {})
        base = drain.get(results["base"], {})
        row = [contestant.title, contestant.asked, share_text(result), contestant.delivery]
        row += [number_text(drain.get(scenario, {}).get("rate")) for scenario in results["scenarios"]]
        row += [number_text(base.get("cpu_seconds_per_million")), number_text(base.get("peak_megabytes"))]
        rows.append([*row, delay_text(live), number_text(live.get("cores"))])
    pictures = _picture("Throughput by contestant", "throughput") + _picture("Delay by contestant", "delay")
    return _table(head, rows) + pictures


def _answers(results: Mapping[str, Any]) -> str:
    return "\n".join(f"- {line}" for line in answers(results)) or "All gave what was owed."


def _limits(results: Mapping[str, Any]) -> str:
    rows = [[name, number_text(rate)] for name, rate in results.get("limits", {}).items()]
    return _table(["limit", "ticks/s"], rows)


def _windows(results: Mapping[str, Any]) -> str:
    keys = ("hours", "backlog_microseconds", "live_microseconds", "state_bytes")
    rows = [[number_text(row[key]) for key in keys] for row in results.get("curves", {}).get("windows", [])]
    return _table(
        ["longest window, h", "backlog, µs a tick", "live, µs a tick", "state, bytes a symbol"], rows
    ) + _picture("Cost against window length", "windows")


def _symbols(results: Mapping[str, Any]) -> str:
    rows = []
    for row in results.get("curves", {}).get("symbols", []):
        rates = [
            results["contestants"].get(name, {}).get("drain", {}).get(str(row["symbols"]), {}).get("rate")
            for name in (MOVING, PROJECT)
        ]
        costs = [None if rate is None else 1e6 / rate for rate in rates]
        rows.append([number_text(row["symbols"]), number_text(row["microseconds"]), *map(number_text, costs)])
    head = ["symbols", "kernels, µs a tick", "`moving` alone, µs a tick", "three streams, µs a tick"]
    return _table(head, rows) + _picture("Cost against symbols", "symbols")


def _further(results: Mapping[str, Any]) -> str:
    return "\n".join(f"- {line}" for line in further(results))


def write(results: Mapping[str, Any], page: Path = PAGE) -> None:
    """Fill the page in place."""
    page.write_text(fill(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def main() -> int:
    """Fill the page from the last results; returns the exit code."""
    write(json.loads(_RESULTS.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
