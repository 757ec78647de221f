"""The checks that read tables and collections, run as the job runs them: all well, and each thing that can be amiss."""

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from pymongo import MongoClient

from orchestration.defs.resources import MongoResource
from orchestration.monitoring.table_checks import TABLE_CHECKS
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document
from producer.heartbeat import utc_text
from tests.dagster.conftest import definitions
from tests.market_tables import append, make, rows
from tickhouse import files

pytestmark = pytest.mark.integration

TICKS = 600
START = datetime.datetime(2025, 5, 8, 12, tzinfo=datetime.UTC)


def produce(home: Path, source: str, state: str) -> None:
    """The heartbeat of a producer that is alive for as long as any test takes."""
    heartbeat = {"source": source, "state": state, "written_at": utc_text(time.time() + 3_600)}
    files.write_json(home / "run" / "producer.heartbeat.json", heartbeat)


@pytest.fixture
def client(mongo_uri: str) -> Iterator[MongoClient[Document]]:
    with MongoClient[Document](mongo_uri) as opened:
        for database in (DATABASE, RECORDS_DATABASE):
            opened.drop_database(database)
        yield opened


@pytest.fixture
def market(
    stand_in_home: Path, mongo_uri: str, client: MongoClient[Document], instance: dg.DagsterInstance
) -> dg.Definitions:
    """A live source, three tables and the loaded collections."""
    make(stand_in_home / "lakehouse", START, TICKS)
    produce(stand_in_home, "simulator", "running")
    loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
    assert loaded.resolve_job_def("load_mongodb").execute_in_process(instance=instance).success
    return loaded


def check(loaded: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, str]:
    """What each check says; those that fail begin with a !."""
    result = loaded.resolve_job_def("check_tables").execute_in_process(instance=instance, raise_on_error=False)
    assert result.success, "a check that fails does not fail the run"
    said = {}
    for evaluation in result.get_asset_check_evaluations():
        mark = "" if evaluation.passed else "!"
        said[f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"] = f"{mark}{evaluation.description}"
    assert set(said) == {f"{key.asset}:{key.name}" for key in TABLE_CHECKS}
    return said


def failed(said: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in said.items() if text.startswith("!")}


def test_all_is_well(market: dg.Definitions, instance: dg.DagsterInstance) -> None:
    said = check(market, instance)
    assert failed(said) == {}
    assert said["prices:no_gaps"] == "within bounds"
    assert said["zscores:scores"] == "finite and centred"
    assert said["zscore_1h:equals_table"] == "equal"
    assert said["higher:schema"] == "there is nothing to check yet"


def wide(home: Path) -> None:
    append(home / "lakehouse", "prices", rows("prices", START, [TICKS + 101]))


def on_two_partitions(home: Path) -> None:
    strays = rows("prices", START, [TICKS])
    other = pa.array([1], pa.int32())
    append(
        home / "lakehouse", "prices", strays.set_column(strays.schema.get_field_index("partition"), "partition", other)
    )


def repeated(home: Path) -> None:
    append(home / "lakehouse", "prices", rows("prices", START, [TICKS - 1]))


def repeated_result(home: Path) -> None:
    append(home / "lakehouse", "moving_stats", rows("moving_stats", START, [TICKS - 1, TICKS - 2]))


def infinite(home: Path) -> None:
    append(home / "lakehouse", "zscores", rows("zscores", START, [TICKS], float("inf")))


def skewed(home: Path) -> None:
    append(home / "lakehouse", "zscores", rows("zscores", START, range(TICKS, 9 * TICKS), 2.6))


def widened(home: Path) -> None:
    more = rows("moving_stats", START, [TICKS]).append_column("extra", pa.array([1], pa.int32()))
    append(home / "lakehouse", "moving_stats", more)


@pytest.mark.parametrize(
    ("damage", "check_name", "said"),
    [
        (
            on_two_partitions,
            "prices:one_partition",
            "!1 symbols lie on more than one partition",
        ),
        (wide, "prices:no_gaps", "!BTCUSDT: 10.2 s without a tick"),
        (repeated, "prices:no_duplicates", "!1 identities occur more than once, such as btc-price 0 599"),
        (repeated_result, "moving_stats:no_duplicates", "!2 identities occur more than once, such as BTCUSDT"),
        (infinite, "zscores:scores", "!not finite: 1 of 30s, 1 of 1m"),
        (skewed, "zscores:scores", "!30s: mean +2.31, at most"),
        (widened, "moving_stats:schema", "!has extra int"),
    ],
)
def test_what_is_amiss_in_a_table_is_told(
    market: dg.Definitions,
    instance: dg.DagsterInstance,
    stand_in_home: Path,
    damage: Callable[[Path], None],
    check_name: str,
    said: str,
) -> None:
    damage(stand_in_home)
    found = failed(check(market, instance))
    assert found[check_name].startswith(said)
    others = {"moving_stats:no_duplicates"} if damage is widened else set()
    assert set(found) - others == {check_name}, "a load that is due is nothing amiss"


def test_a_recording_may_have_gaps(market: dg.Definitions, instance: dg.DagsterInstance, stand_in_home: Path) -> None:
    wide(stand_in_home)
    produce(stand_in_home, "replay:/x", "ended")
    assert failed(check(market, instance)) == {}


def test_a_collection_that_differs_is_told(
    market: dg.Definitions, instance: dg.DagsterInstance, client: MongoClient[Document]
) -> None:
    data = client[DATABASE]
    data["btc-price-zscore-30s"].update_one({}, {"$set": {"zscore_price": 1.0000000001}})
    data["btc-price-zscore-1m"].delete_one({})
    data["btc-price-zscore-5m"].insert_one({"_id": "more"})
    found = failed(check(market, instance))
    assert {key.split(":")[0] for key in found} == {"zscore_30s", "zscore_1m", "zscore_5m"}
    assert found["zscore_30s:equals_table"].startswith("!1 different, such as BTCUSDT|")
    assert found["zscore_1m:equals_table"].startswith("!599 documents for 600 rows; 1 missing, such as BTCUSDT|")
    assert found["zscore_5m:equals_table"] == "!601 documents for 600 rows"


def test_mongodb_that_is_away_is_told_and_the_tables_are_checked(
    market: dg.Definitions, instance: dg.DagsterInstance, stand_in_home: Path
) -> None:
    found = failed(check(definitions(stand_in_home), instance))
    assert set(found) == {key for key in found if key.endswith(":equals_table")} and len(found) == 6
    assert all("MongoDB does not answer" in text for text in found.values())


def test_a_home_without_tables_has_nothing_to_check(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    said = check(definitions(stand_in_home), instance)
    assert all(text == "there is nothing to check yet" for key, text in said.items() if "equals" not in key)
