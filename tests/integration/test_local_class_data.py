"""The class-data archives: made by a rehearsal, used by Java, and done without where they do not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestration.local import appcds
from orchestration.local.artifacts import kafka_jars
from orchestration.local.java import Java

pytestmark = pytest.mark.integration


def loaded_from_archive(java: Java, options: list[str], tools: Path) -> int:
    """How many of the broker's classes Java takes from the archive on showing its version of Kafka."""
    command = [str(java.executable), *options, "-Xlog:class+load", "-cp", f"{kafka_jars(tools)}/*"]
    shown = subprocess.run([*command, "kafka.Kafka", "--version"], capture_output=True, text=True, check=True).stdout
    return shown.count("source: shared objects file (top)")


def test_java_takes_classes_from_the_archive(tools: Path, java: Java) -> None:
    assert appcds.complete(tools, java)
    options = [*appcds.broker_options(tools, java), "-XX:+UseSerialGC"]
    assert loaded_from_archive(java, options, tools) > 100


def test_there_are_no_options_without_an_archive(tmp_path: Path, java: Java) -> None:
    assert not appcds.complete(tmp_path, java)
    assert appcds.stream_options(tmp_path, java) == appcds.broker_options(tmp_path, java) == []


def test_a_rehearsal_that_cannot_be_held_is_told_and_left(tmp_path: Path, java: Java) -> None:
    said: list[str] = []
    appcds.make(tmp_path, java, {}, said.append)  # no JARs there
    assert "Preparing Java has failed" in said[-1]
    assert not appcds.complete(tmp_path, java)
