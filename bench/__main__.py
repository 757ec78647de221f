"""This project and its peers on the same ticks, on the same machine, in one run.

    python -m bench [--quick] [--only NAME,…] [--parts correct,drain,live,…] [--add] [--minutes 30]

Each contestant gets the same ticks on a broker of the comparison's own, one after the other, and a bounded time: rates
come from what it did in it. What is measured goes to `bench/results/latest.json` as it comes, with pictures beside it;
the last line of the table at the end holds this project's ratios to the best correct peer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench import correct, curves, document, limits, load, plots, table
from bench.drain import drain
from bench.live import live
from bench.peer_envs import Workshop
from bench.recovery import recovery
from bench.systems import CONTESTANTS, MOVING, PROJECT, Contestant, make_ready
from bench.testbed import Ground
from bench.ticks import Walk, final_passages, final_statistics, random_walk
from orchestration.local import appcds
from orchestration.local.artifacts import ensure_tools
from orchestration.local.java import Java, find_java
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tickhouse.contract.names import PASSAGE_HORIZON_MS
from tickhouse.settings import path_argument

RESULTS = PROJECT_ROOT / "bench" / "results"
PARTS = ("correct", "limits", "curves", "load", "recovery", "drain", "live", "symbols")
BASE = "8"
"""The number of symbols at which all contestants are compared: the hour of the longest window then fills."""
OTHERS = ("1", "100", "2000")
_SEED = 1
_SETTLE_SECONDS = 5.0
_CATCH_UP_SECONDS = 45.0
"""With the whole exchange, in the time that streams need to start 200,000 ticks and more have come together."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    backlog: int
    """Ticks in a backlog."""
    box_seconds: float
    """How long a contestant may work on it from its first results."""
    warm_up_seconds: float
    others: tuple[str, ...]
    """Numbers of symbols at which `moving` alone is measured as well."""
    live_seconds: float
    live_symbols: int
    whole_exchange: int
    """Symbols of a second live run, of this project alone; 0 = none."""
    correctness_ticks: int
    limit_seconds: float
    loaded_ticks: int
    """Ticks whose z-scores are loaded into MongoDB."""


FULL = Extent(2_000_000, 30.0, 8.0, OTHERS, 20.0, 10, 2_000, 4_000, 6.0, 200_000)
QUICK = Extent(400_000, 15.0, 4.0, (), 10.0, 10, 0, 2_000, 3.0, 40_000)


class Run:
    """One comparison."""

    def __init__(self, options: argparse.Namespace, extent: Extent, console: Console, folder: Path) -> None:
        self._options = options
        self._extent = extent
        self._console = console
        self._folder = folder
        self._began = time.monotonic()
        self._java: Java = find_java(os.environ)
        self._tools = OrchestrationSettings.read(of_running_stack=False).tools
        self._contestants = {
            name: one for name, one in CONTESTANTS.items() if not options.only or name in options.only.split(",")
        }
        self.results: dict[str, Any] = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": options.quick,
            "machine": machine(),
            "base": BASE,
            "scenarios": [BASE, *extent.others],
            "contestants": {},
        }
        if options.add:
            earlier = json.loads((options.out / "latest.json").read_text())
            self.results = {**earlier, **self.results, "contestants": earlier["contestants"]}

    def run(self) -> None:
        """Measure all that was asked for, as long as the time lasts."""
        workshop = Workshop(self._tools, self._java, self._say)
        ensure_tools(self._tools, self._java, os.environ)
        appcds.make(self._tools, self._java, os.environ, self._say)
        for name, reason in make_ready(self._contestants, workshop).items():
            self._say(f"{CONTESTANTS[name].title} cannot be run: {reason}")
            self.results["contestants"][name] = {"unavailable": reason}
            del self._contestants[name]
        # What takes long to prepare once does not count.
        self._began = time.monotonic()
        parts = {
            "correct": self._correct,
            "limits": self._limits,
            "curves": self._curves,
            "load": self._load,
            "recovery": self._recovery,
            "drain": self._drain,
            "live": self._live,
            "symbols": self._symbols,
        }
        for part in PARTS:
            if part in self._options.parts.split(","):
                parts[part]()
        self.results["minutes"] = round((time.monotonic() - self._began) / 60, 1)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _correct(self) -> None:
        with self._ground() as ground:
            messages = correct.lines(_SEED, self._extent.correctness_ticks)
            ground.send(messages)
            owed = correct.statistics_owed(messages)
            for contestant in self._contestants.values():
                self._one("correctness", contestant, partial(correct.correctness, ground, contestant, owed))

    def _limits(self) -> None:
        walk = random_walk(_SEED, int(BASE), self._extent.backlog)
        with self._ground() as ground:
            self._say("Limits")
            ground.send_walk(walk)
            self.results["limits"] = limits.measure(ground, walk, self._extent.limit_seconds)
            self.keep()

    def _curves(self) -> None:
        self._say("Cost against window length and symbols")
        seconds = self._extent.limit_seconds / 4
        with self._console.status("") as status:
            self.results["curves"] = {
                "windows": curves.against_windows(_SEED, seconds, status.update),
                "symbols": curves.against_symbols(_SEED, self._extent.backlog, seconds, status.update),
                "state_bytes_after_two_hours": curves.state_of_hour(_SEED),
            }
        self.keep()

    def _load(self) -> None:
        self._say("Filling MongoDB")
        with self._console.status("") as status:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            self.results["load"] = load.measure(folder, self._tools, self._extent.loaded_ticks, status.update)
        self.keep()

    def _recovery(self) -> None:
        self._say("Killing `moving` and starting it again")
        with self._ground() as ground, self._console.status("") as status:
            self.results["recovery"] = recovery(ground, CONTESTANTS[MOVING], _SEED, status.update)
        self.keep()

    def _drain(self) -> None:
        self._drain_of(BASE, self._contestants)

    def _symbols(self) -> None:
        alone = {name: one for name, one in self._contestants.items() if name == MOVING}
        for symbols in self._extent.others if alone else ():
            self._drain_of(symbols, alone)

    def _drain_of(self, symbols: str, contestants: Mapping[str, Contestant]) -> None:
        walk = random_walk(_SEED, int(symbols), self._extent.backlog)
        with self._ground() as ground:
            self._say(f"Sending {walk.ticks:,} ticks of {symbols} symbols")
            ground.send_walk(walk)
            for contestant in contestants.values():
                self._one(f"drain.{symbols}", contestant, partial(self._drained, ground, contestant, walk))

    def _drained(self, ground: Ground, one: Contestant, walk: Walk, tell: Callable[[str], None]) -> dict[str, Any]:
        return drain(
            ground,
            one,
            final_statistics(walk, limits.LATENESS_MS),
            final_passages(walk, limits.LATENESS_MS, PASSAGE_HORIZON_MS),
            self._extent.box_seconds,
            self._extent.warm_up_seconds,
            tell,
        )

    def _live(self) -> None:
        extent = self._extent
        with self._ground() as ground:
            for contestant in self._contestants.values():
                measure = partial(live, ground, contestant, extent.live_symbols, _SETTLE_SECONDS, extent.live_seconds)
                self._one("live", contestant, measure)
            project = self._contestants.get(PROJECT)
            if extent.whole_exchange and project is not None:
                symbols = extent.whole_exchange
                measure = partial(live, ground, project, symbols, _CATCH_UP_SECONDS, extent.live_seconds)
                self._one(f"live_{symbols}", project, measure)

    # --- what they share ----------------------------------------------------------------------------------------------

    def _ground(self) -> Ground:
        return Ground(Path(tempfile.mkdtemp(dir=self._folder)) / "ground", self._tools, self._java)

    def _one(
        self, key: str, contestant: Contestant, measure: Callable[[Callable[[str], None]], dict[str, Any]]
    ) -> None:
        """Measure one thing of one contestant, unless the time is over, and keep the results so far."""
        mine = self.results["contestants"].setdefault(contestant.name, {})
        part, _, scenario = key.partition(".")
        place, name = (mine.setdefault(part, {}), scenario) if scenario else (mine, part)
        label = f"{part.replace('_', ', ')}{f', {scenario} symbols' if scenario else ''}: {contestant.title}"
        if time.monotonic() - self._began > self._options.minutes * 60:
            place[name] = {"failure": f"not measured: {self._options.minutes} minutes were over"}
        else:
            with self._console.status("") as status:
                place[name] = measure(lambda text: status.update(f"{label}: {text}"))
        self._say(f"{label}: {brief(place[name])}")
        self.keep()

    def keep(self) -> None:
        """Write what there is so far."""
        self._options.out.mkdir(parents=True, exist_ok=True)
        (self._options.out / "latest.json").write_text(json.dumps(self.results, indent=1) + "\n")

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self._console.print(f"[dim]{minutes:2}:{seconds:02}[/dim] {text}", highlight=False)


def brief(figures: Mapping[str, Any]) -> str:
    """The most telling figure."""
    if "rate" in figures:
        return f"{figures['rate']:,.0f} ticks/s"
    if "share" in figures and "failure" not in figures:
        return f"{100 * figures['share']:.1f} % of {figures['owed']:,} results right"
    if "delay" in figures:
        return f"delay {table.delay_text(figures)} s, {figures['cores']} cores"
    return str(figures.get("failure", "nothing measured"))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gigabytes": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Run and show; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: less of everything, one number of symbols")
    parser.add_argument("--only", default="", help=f"comma list of {', '.join(CONTESTANTS)}")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument(
        "--minutes", type=float, default=30, help="no new measurement begins after so long (default 30)"
    )
    parser.add_argument("--add", action="store_true", help="keep of the last results what is not measured now")
    parser.add_argument("--out", type=path_argument, default=RESULTS, help="folder of results (default bench/results)")
    options = parser.parse_args()
    unknown = set(filter(None, options.only.split(","))) - set(CONTESTANTS) | set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    # A run that is ended ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        run = Run(options, QUICK if options.quick else FULL, console, folder)
        try:
            run.run()
        finally:
            run.keep()
    drawn = plots.draw(run.results, options.out)
    console.print(f"Written: {options.out / 'latest.json'}, {', '.join(path.name for path in drawn)}")
    if not (options.quick or options.only) and options.out == RESULTS:
        document.write(run.results)
    table.show(run.results, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
