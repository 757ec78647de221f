"""What is pinned in several places is of one aligned set of releases."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.peer_envs import PEERS
from orchestration.local.artifacts import Jar, pinned_jars

SPARK = {jar.name: jar for jar in pinned_jars("spark-jars")}
BROKER = {jar.name: jar for jar in pinned_jars("kafka-jars")}


def test_the_connectors_are_of_pyspark_s_release() -> None:
    connectors = {jar.name: jar.revision for jar in SPARK.values() if jar.organisation == "org.apache.spark"}
    assert connectors == dict.fromkeys(connectors, version("pyspark"))
    assert len(connectors) == 2


def test_delta_is_of_its_package_s_release_and_made_for_this_spark() -> None:
    delta = {name: jar.revision for name, jar in SPARK.items() if jar.organisation == "io.delta"}
    assert delta == dict.fromkeys(delta, version("delta-spark"))
    feature_release = ".".join(version("pyspark").split(".")[:2])
    assert f"delta-spark_{feature_release}_2.13" in delta


def test_no_jar_brings_another_jackson_than_pyspark_has() -> None:
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    (databind,) = (Path(spec.origin).parent / "jars").glob("jackson-databind-*.jar")
    assert databind.stem.removeprefix("jackson-databind-") == SPARK["jackson-datatype-jdk8"].revision


@pytest.mark.parametrize(
    "jars",
    [BROKER, {jar.name: jar for jar in pinned_jars("kafka-streams-jars", PEERS / "kafka_streams")}],
    ids=("broker", "kafka_streams"),
)
def test_everything_of_kafka_is_of_the_broker_s_release(jars: dict[str, Jar]) -> None:
    found = {name: jar.revision for name, jar in jars.items() if jar.organisation == "org.apache.kafka"}
    assert found
    assert found == dict.fromkeys(found, BROKER["kafka_2.13"].revision)


@pytest.mark.parametrize("bundle", ["spark-jars", "kafka-jars"])
def test_a_list_has_one_release_of_each_jar(bundle: str) -> None:
    names = [(jar.organisation, jar.name) for jar in pinned_jars(bundle)]
    assert len(set(names)) == len(names)
