"""Paths that other programs are told: quoted as each of them reads it, or refused with a sentence."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from orchestration.local.broker import Broker, NotReady, java_property
from orchestration.local.java import Java
from orchestration.local.paths import unusable
from orchestration.settings import OrchestrationSettings
from spark_jobs.settings import as_spark_reads


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "My Projects",
        "ünïcode",
        "it's",
        '"q"',
        "$HOME",
        "a*b;c",
        "{b}",
        "100%",
        "a:b",
        "=",
        "~",
        "x ",
        "-x",
        "漢字",
        "&(c)<>",
    ],
)
def test_most_names_can_be_used(tmp_path: Path, name: str) -> None:
    assert list(unusable(OrchestrationSettings.read(home=tmp_path / name))) == []


@pytest.mark.parametrize(
    ("setting", "name", "sentence"),
    [
        ("home", "a,b", "The path of the home, {path}, has a comma in it, and Kafka takes it for the end of a path"),
        *(
            ("home", f"a{c}b", "the library that writes the Delta tables takes the path for")
            for c in ("%41", *"#?[]\\^|")
        ),
        ("home", "a🙂b", "has 🙂 in it, and RocksDB, which keeps the state of streams, takes it for others"),
        ("home", "a\nb", "has a control character or is not UTF-8: choose another with --home or TICKHOUSE_HOME"),
        ("home", "a\x7fb", "has a control character or is not UTF-8"),
        ("home", os.fsdecode(b"a\xff"), "has a control character or is not UTF-8"),
        ("home", "/".join(["x" * 200] * 20), "is longer than 3,500 bytes"),
        ("lakehouse", "a%41b", "The path of the folder of lakehouse, {path}, has %41 in it"),
        ("checkpoints", "a#b", "choose another with TICKHOUSE_CHECKPOINTS"),
        ("tools", "a:b", "The path of the folder of tools, {path}, has a colon in it, and Java takes it for the end"),
        ("jars", "a:b", "choose another with TICKHOUSE_JARS"),
    ],
)
def test_what_no_quoting_helps_is_refused(tmp_path: Path, setting: str, name: str, sentence: str) -> None:
    path = tmp_path / name
    settings = OrchestrationSettings.read(of_running_stack=False, **{setting: str(path)})
    (told,) = unusable(settings)
    assert sentence.format(path=path) in told
    assert told.isprintable()


def test_tables_elsewhere_than_on_this_machine_have_no_path() -> None:
    settings = OrchestrationSettings.read(lakehouse="s3a://bucket/a%20b", checkpoints="abfss://box@account/#")
    assert list(unusable(settings)) == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/a/b_c-1.2", "/a/b_c-1.2"),
        ("/a b", "/a\\u0020b"),
        ("/ü", "/\\u00fc"),
        ("/🙂", "/\\ud83d\\ude42"),
        ("/a=b:c#d!e", "/a\\u003db\\u003ac\\u0023d\\u0021e"),
        ("/a\\", "/a\\u005c"),
    ],
)
def test_a_value_of_a_java_properties_file(text: str, written: str) -> None:
    assert java_property(text) == written


def test_the_configuration_of_the_broker_is_ascii(tmp_path: Path) -> None:
    node = Broker(tmp_path / "ü🙂", 1, 2)
    node.directory.mkdir()
    node.write_properties(node.directory / "data")
    assert (node.directory / "server.properties").read_bytes().isascii()


def test_the_broker_makes_nothing_in_a_folder_with_a_comma(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="has a comma in it, and Kafka takes it for the end of a path"):
        Broker(tmp_path / "a,b" / "kafka", 1, 2).prepare(Java(tmp_path, 21), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_java_options_for_spark() -> None:
    options = ["-XX:SharedArchiveFile=/My Projects/it's/a.jsa", '-Da="q"', "-Db=back\\slash", "-Dplain"]
    # Quotes and backslashes mean the same to a shell as to Spark, but for $ and `.
    assert shlex.split(as_spark_reads(options)) == options
