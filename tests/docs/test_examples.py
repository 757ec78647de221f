"""The example script, on tables whose answers are known."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestration.settings import PROJECT_ROOT
from tests.docs.conftest import Project
from tests.reference.ideal import zscore
from tests.reference.model import Expected
from tests.reference_tables import make

SCRIPT = PROJECT_ROOT / "examples" / "three_questions.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("three_questions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _turns(expected: Expected) -> tuple[list[tuple[str, int]], int, int]:
    """Far ticks with an answer in both directions, and how many of them first went back and first went on."""
    far, back, on = [], 0, 0
    for key, windows in expected.stats.items():
        score = zscore(expected.units[key], windows[0])
        if score is None or abs(score) <= 3 or key not in expected.higher or key not in expected.lower:
            continue
        higher, lower = expected.higher[key], expected.lower[key]
        towards, away = (lower, higher) if score > 0 else (higher, lower)
        far.append(key)
        back += towards < away
        on += away < towards
    return far, back, on


def test_reversals_are_counted_as_the_reference_counts_them(script: ModuleType, project: Project) -> None:
    far, back, on = _turns(project.expected)
    answer, sentence = script.turning_back(str(project.lakehouse))
    assert answer["group"].to_list() == ["|z| > 3", "1 < |z| <= 3", "|z| <= 1"]
    (row,) = answer.filter(answer["group"] == "|z| > 3").to_dicts()
    assert (row["ticks"], row["turned_back"], row["went_on"]) == (len(far), back, on)
    episodes, began = 0, ("", 0)
    for symbol, time in sorted(far):
        if symbol != began[0] or time - began[1] >= 20_000:
            episodes, began = episodes + 1, (symbol, time)
    assert episodes >= script.ENOUGH, "there is enough to say something"
    assert sentence.startswith(
        f"Of {len(far):,} ticks with |z| > 3 at 30 s, in {episodes} separate episodes, {back:,} ("
    )


def test_late_and_repeated_are_those_of_the_reference(script: ModuleType, project: Project) -> None:
    answer, sentence = script.lateness(str(project.lakehouse))
    found = {row["symbol"]: row for row in answer.to_dicts()}
    for symbol, count in project.expected.symbols.items():
        row = found[symbol]
        assert (row["ticks"], row["late"], row["repeated"]) == (len(count.on_time), count.late, count.duplicates)
    assert project.expected.late > 0
    assert f" {project.expected.late:,} (" in sentence


def test_waits_by_volatility_cover_every_tick_once(script: ModuleType, project: Project) -> None:
    answer, sentence = script.waits_by_volatility(str(project.lakehouse))
    both = project.expected.higher.keys() & project.expected.lower.keys()
    known = [key for key in both if project.expected.stats[key][2].size > 1]
    assert answer["times"].to_list() == ["calm", "middling", "rough"]
    assert answer["ticks"].sum() == len(known)
    assert answer["volatility"].is_sorted()
    waits = sum(project.expected.higher[key] for key in known) / 1_000
    assert (answer["seconds_to_higher"] * answer["ticks"]).sum() == pytest.approx(waits)
    assert sentence.startswith("In calm times a higher price took ")


@pytest.mark.parametrize("ticks", [1, 200])
def test_too_little_is_said_to_be_too_little(script: ModuleType, tmp_path: Path, ticks: int) -> None:
    make(tmp_path, seed=1, symbols=("BTCUSDT",), ticks=ticks)
    for ask in (script.turning_back, script.waits_by_volatility):
        assert ask(str(tmp_path))[1].startswith("Too little data: ")
    assert script.lateness(str(tmp_path))[1].startswith("Too little data: " if ticks == 1 else "Of ")


def test_as_a_user_runs_it(project: Project, tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, SCRIPT, project.lakehouse], capture_output=True, text=True, check=True)
    assert told.stdout.count("\n\n") == 3
    nothing = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert nothing.returncode == 1
    assert "there are no tables" in nothing.stderr
    assert "Traceback" not in nothing.stderr


def test_without_polars_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "polars.py").write_text("raise ModuleNotFoundError(__name__)")
    told = subprocess.run(
        [sys.executable, SCRIPT], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert "run `make setup`" in told.stderr
    assert "Traceback" not in told.stderr
