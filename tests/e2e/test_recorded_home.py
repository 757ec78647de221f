"""A home that an earlier version left in the middle of its work goes on: nothing is lost, repeated or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.local.home_marker import MARKER, read_marker
from tests.recorded_home import is_planned, unpack
from tests.reference.compare import compare_everything
from tests.running_stack import stack, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.whole_machine]

RECORDED = sorted((Path(__file__).parents[1] / "data").glob("home-*.tar.xz"))


@pytest.mark.parametrize("archive", RECORDED, ids=lambda archive: archive.name)
def test_a_home_of_an_earlier_version_goes_on(archive: Path, tmp_path: Path, tools: Path, home: Path) -> None:
    unpack(archive, tmp_path)
    assert is_planned(home)
    (home / MARKER).unlink()  # versions that were recorded wrote none
    sent, rest, output = tmp_path / "sent.jsonl", tmp_path / "rest.jsonl", tmp_path / "up.log"
    everything = tmp_path / "everything.jsonl"
    everything.write_bytes(sent.read_bytes() + rest.read_bytes())

    with stack(home, output, "--source", f"replay:{rest}", "--speed", "max", "--no-ui") as up:
        seen = wait_until(lambda seen: bool(seen["drained"]), home, up, output, 300)
        report = compare_everything(seen["kafka_bootstrap"], seen["lakehouse"], seen["mongo_uri"], sent=everything)
        assert report.ok, report.text()
    assert read_marker(home, "home") is not None


def test_there_is_a_recorded_home() -> None:
    assert RECORDED
