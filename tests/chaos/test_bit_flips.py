"""No flipped bit is read as something else; without the checksums many a one would be."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orchestration.settings import PROJECT_ROOT
from tests.chaos.bit_flips import broker_kinds, count, data_kinds, flipped, record_kinds
from tickhouse.kafka.range_reader import TopicDamaged

_NEVER_REFUSED = {"Delta: _last_checkpoint", "Delta: our checksums"}


def test_tables(tmp_path: Path) -> None:
    kinds = data_kinds(tmp_path, checked=True)
    found = {name: count(kind, 150 if name == "Delta: data" else 30, Random(3)) for name, kind in kinds.items()}
    assert {name: outcomes["wrong"] for name, outcomes in found.items()} == dict.fromkeys(found, 0)
    assert {name for name, outcomes in found.items() if not outcomes["refused"]} == _NEVER_REFUSED
    assert found["Delta: data"]["refused"] > 120


def test_tables_without_checksums() -> None:
    # In a process of its own, as a damaged file may end the one that reads it: for that, too, the code is not 0.
    command = [sys.executable, "-m", "tests.chaos.bit_flips", "--only", "Delta: data", "--break", "checks"]
    for seed in "123":
        done = subprocess.run(
            [*command, "--flips", "60", "--seed", seed], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        if done.returncode == 1:
            break
    assert done.returncode == 1 and done.stdout.count(": bit ") > 2, done.stdout


def test_records(tmp_path: Path) -> None:
    found = {name: count(kind, 150, Random(4)) for name, kind in record_kinds(tmp_path, checked=True).items()}
    assert found["checkpoint: records"] == Counter(refused=150, harmless=0, wrong=0)
    assert found["home: marker"]["wrong"] == 0, "and whose folder it is not sure to be, is not emptied"


def test_records_without_checksums(tmp_path: Path) -> None:
    assert count(record_kinds(tmp_path, checked=False)["checkpoint: records"], 150, Random(4))["wrong"] > 5


@pytest.mark.integration
@pytest.mark.parametrize("checked", [True, False])
def test_topics(tmp_path: Path, tools: Path, checked: bool) -> None:
    with broker_kinds(tmp_path, tools, checked=checked) as kinds:
        found = {name: count(kind, 12 if checked else 8, Random(5)) for name, kind in kinds.items()}
        if checked:
            (segment,), (read,) = kinds["Kafka: segments"].files, kinds["Kafka: segments"].readers
            told = (
                r"flips partition 0 is damaged at offset 0 \(.*failed CRC32C check.*`tickhouse skip` goes on past them"
            )
            with flipped(segment, 70, 0), pytest.raises(TopicDamaged, match=told):
                read()
    wrong = {name for name, outcomes in found.items() if outcomes["wrong"]}
    assert wrong == (set() if checked else {"Kafka: segments"})
    assert found["Kafka: indexes"]["wrong"] == 0, "the broker does without"
