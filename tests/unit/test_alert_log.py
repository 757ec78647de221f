"""The log of alerts: what is written is read back, newest first, and it does not grow without bounds."""

import datetime
from pathlib import Path

from orchestration.monitoring import alert_log
from orchestration.monitoring.alert_log import Alert

NOON = datetime.datetime(2025, 5, 8, 12, tzinfo=datetime.UTC)


def alert(number: int) -> Alert:
    return Alert(at=NOON, key=f"stream:{number}", state="raised", title=f"number {number}", detail="x" * 1_000)


def test_there_is_no_alert_before_the_first(tmp_path: Path) -> None:
    assert alert_log.latest(tmp_path, 5) == []


def test_the_latest_come_first(tmp_path: Path) -> None:
    for number in range(4):
        alert_log.append(tmp_path, alert(number))
    assert alert_log.latest(tmp_path, 2) == [alert(3), alert(2)]


def test_a_line_that_was_cut_off_hides_no_other(tmp_path: Path) -> None:
    alert_log.append(tmp_path, alert(1))
    with (tmp_path / "alerts.jsonl").open("ab") as log:
        log.write(b'{"at": "20\n')
    alert_log.append(tmp_path, alert(2))
    assert alert_log.latest(tmp_path, 5) == [alert(2), alert(1)]


def test_only_the_newer_part_of_a_long_log_is_kept(tmp_path: Path) -> None:
    for number in range(2_500):
        alert_log.append(tmp_path, alert(number))
    kept = alert_log.latest(tmp_path, 10_000)
    assert kept[0] == alert(2_499)
    assert 800 < len(kept) < 2_000
    assert (tmp_path / "alerts.jsonl").stat().st_size <= 2_100_000
