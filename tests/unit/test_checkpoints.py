"""A checkpoint's identity, what damage of it is found, and moving it past a gap. The files are as Spark writes them."""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from spark_jobs.checkpoints.checkpoint import Checkpoint, CheckpointDamaged, CheckpointMismatch, Progress
from spark_jobs.checkpoints.files import LocalFiles

IDENTITY = {"query": "moving", "version": 1, "lateness_ms": 10_000, "state_partitions": 1}
CONF = '{"batchWatermarkMs":0,"batchTimestampMs":1,"conf":{}}'


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(LocalFiles(folder), "moving")


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def plan(folder: Path, batch: int, offset: int) -> None:
    put(folder / f"offsets/{batch}", f'v1\n{CONF}\n{{"btc-price":{{"0":{offset}}}}}')


def do(folder: Path, batch: int) -> None:
    put(folder / f"state/0/0/{batch + 1}.changelog", "changes")
    put(folder / f"commits/{batch}", 'v1\n{"nextBatchWatermarkMs":0}')


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """Three micro-batches done, a fourth planned; a snapshot of the state after the second."""
    folder = tmp_path / "moving"
    checkpoint(folder).claim(IDENTITY)
    for batch in range(4):
        plan(folder, batch, 10 * (batch + 1))
        if batch < 3:
            do(folder, batch)
    put(folder / "state/0/0/2.zip", "snapshot")
    return folder


def test_the_query_id_is_there_before_spark_is(tmp_path: Path) -> None:
    checkpoint(tmp_path / "moving").claim(IDENTITY)
    noted = json.loads((tmp_path / "moving/tickhouse.json").read_text())
    assert json.loads((tmp_path / "moving/metadata").read_text()) == {"id": noted["query_id"]}
    # A kill between the two files changes nothing.
    (tmp_path / "moving/metadata").unlink()
    checkpoint(tmp_path / "moving").claim(IDENTITY)
    assert json.loads((tmp_path / "moving/metadata").read_text()) == {"id": noted["query_id"]}


@pytest.mark.parametrize("name", ["moved", "a room é", 'with "quotes" and \\'])
def test_the_state_of_a_moved_checkpoint_is_found(used: Path, name: str) -> None:
    schemas = [f"file:{used}/state/0/_stateSchema/default/{number}" for number in (0, 1)]
    noted = {"stateStoreInfo": [{"storeName": "default", "stateSchemaFilePaths": schemas}], "more": "{\\"}
    put(used / "state/0/_metadata/v2/0", f"v2\n{json.dumps(noted)}")
    put(used / "state/0/_metadata/v2/.0.crc", "of the old content")
    elsewhere = used.with_name(name)
    used.rename(elsewhere)
    checkpoint(elsewhere).claim(IDENTITY)
    version, content = (elsewhere / "state/0/_metadata/v2/0").read_text().split("\n")
    paths = [f"file:{elsewhere}/state/0/_stateSchema/default/{number}" for number in (0, 1)]
    assert version == "v2"
    assert json.loads(content) == noted | {"stateStoreInfo": [{"storeName": "default", "stateSchemaFilePaths": paths}]}
    assert LocalFiles(elsewhere).read("state/0/_metadata/v2/0"), "its checksum is that of the new content"


def test_how_far_it_is(used: Path) -> None:
    checkpoint(used).claim(IDENTITY)
    assert checkpoint(used).inspect() == Progress(2, {"btc-price": {0: 30}}, {"btc-price": {0: 40}})
    do(used, 3)
    assert checkpoint(used).inspect() == Progress(3, {"btc-price": {0: 40}}, None)
    # A micro-batch whose end was not recorded before the next was planned is done all the same.
    plan(used, 4, 50)
    (used / "commits/3").unlink()
    assert checkpoint(used).inspect() == Progress(3, {"btc-price": {0: 40}}, {"btc-price": {0: 50}})


def test_nothing_is_done_in_a_new_one(tmp_path: Path) -> None:
    assert checkpoint(tmp_path / "moving").inspect() is None
    plan(tmp_path / "moving", 0, 10)
    assert checkpoint(tmp_path / "moving").inspect() == Progress(-1, {}, {"btc-price": {0: 10}})


def finish(folder: Path) -> None:
    do(folder, 3)


def cut(name: str, content: str = "") -> Callable[[Path], None]:
    return lambda folder: put(folder / name, content)


def lose(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return remove


ID_REPAIR = r'write \{"id": "[0-9a-f-]{36}"\} into it'
ANEW = "run `tickhouse rebuild moving`"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param([cut("tickhouse.json")], f"tickhouse.json cannot be read: {ANEW}", id="identity empty"),
        pytest.param([cut("tickhouse.json", "[1]")], "tickhouse.json cannot be read", id="identity garbage"),
        pytest.param([lose("tickhouse.json")], "tickhouse.json is missing", id="identity missing"),
        pytest.param([cut("metadata", '{"id')], f"metadata cannot be read: {ID_REPAIR}", id="metadata torn"),
        pytest.param([lose("metadata")], f"metadata is missing: {ID_REPAIR}.*or {ANEW}", id="metadata missing"),
        pytest.param(
            [cut("metadata", '{"id":"x"}'), lose(".metadata.crc")],
            "metadata has the query id x",
            id="metadata of another",
        ),
        pytest.param(
            [cut("offsets/2", "\0\0")], "offsets/2 cannot be read: run `tickhouse rebuild", id="offsets garbage"
        ),
        pytest.param([cut("offsets/2", f"v1\n{CONF}\n[]")], "offsets/2 cannot be read", id="offsets of no form"),
        pytest.param([lose("offsets/2")], "offsets/2 is missing", id="offsets missing"),
        pytest.param([lose("offsets/3", "offsets/2")], "offsets/2 is missing", id="newest offsets missing"),
        pytest.param([lose("offsets")], "offsets is empty", id="all offsets missing"),
        pytest.param(
            [cut("offsets/3", "v1\n{")],
            "offsets/3 cannot be read: remove offsets/3 and start again: the micro-batch 3 is then planned anew; or",
            id="plan torn",
        ),
        pytest.param(
            [cut("commits/2")], "commits/2 cannot be read: run `tickhouse rebuild", id="end of an earlier one torn"
        ),
        pytest.param(
            [finish, cut("commits/3", "v1\n")],
            "commits/3 cannot be read: remove commits/3 and .*the micro-batch 3 is then repeated",
            id="end of the last one torn",
        ),
        pytest.param(
            [lose("state/0/0/3.changelog")], "3.changelog is missing: run `tickhouse rebuild", id="changes missing"
        ),
        pytest.param(
            [finish, cut("state/0/0/4.changelog")],
            "4.changelog is empty: remove commits/3 and",
            id="last changes torn",
        ),
        pytest.param(
            [finish, lose("state/0/0/3.changelog")],
            "3.changelog is missing: run `tickhouse rebuild",
            id="earlier changes missing",
        ),
        pytest.param(
            [lose("state/0/0/2.zip", "state/0/0/1.changelog")], "1.changelog is missing", id="first changes missing"
        ),
        pytest.param([lose("state")], "1.changelog is missing", id="state missing"),
    ],
)
def test_damage_is_refused_with_the_remedy(used: Path, damage: list[Callable[[Path], None]], said: str) -> None:
    checkpoint(used).claim(IDENTITY)
    for step in damage:
        step(used)
    before = {path: path.read_bytes() for path in used.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointDamaged, match=said):
        checkpoint(used).claim(IDENTITY)
        checkpoint(used).inspect()
    assert {path: path.read_bytes() for path in used.rglob("*") if path.is_file()} == before


def test_changes_before_a_snapshot_are_not_needed(used: Path) -> None:
    (used / "state/0/0/1.changelog").unlink()
    assert checkpoint(used).inspect()


@pytest.mark.parametrize("other", [{"version": 2}, {"lateness_ms": 5_000}, {"state_partitions": 2}, {"query": "trend"}])
def test_other_versions_and_parameters_are_refused(used: Path, other: dict[str, object]) -> None:
    with pytest.raises(
        CheckpointMismatch, match=r"start it with the settings it was made with, or run `tickhouse rebuild"
    ):
        checkpoint(used).claim(IDENTITY | other)


def test_a_copy_is_refused_while_the_original_is_there_and_a_move_is_not(used: Path) -> None:
    copy = used.with_name("copy")
    shutil.copytree(used, copy)
    with pytest.raises(CheckpointMismatch, match=r"is a copy of .*/moving, which is still there"):
        checkpoint(copy).claim(IDENTITY)
    used.rename(used.with_name("aside"))
    checkpoint(copy).claim(IDENTITY)
    used.symlink_to(copy)
    checkpoint(used).claim(IDENTITY)


def test_a_checkpoint_from_before_ids_were_noted_gets_its_own(tmp_path: Path) -> None:
    put(tmp_path / "tickhouse.json", json.dumps(IDENTITY))
    put(tmp_path / "metadata", '{"id":"abc"}')
    plan(tmp_path, 0, 10)
    checkpoint(tmp_path).claim(IDENTITY)
    assert json.loads((tmp_path / "tickhouse.json").read_text())["query_id"] == "abc"


def test_moving_past_a_gap_keeps_all_but_the_offsets(used: Path) -> None:
    put(used / "offsets/.2.crc", "checksum of the old content")
    before = (used / "offsets/2").read_text()
    progress = checkpoint(used).inspect()
    assert progress is not None
    checkpoint(used).go_on_from(progress, {"btc-price": {0: 35}}, {"btc-price": {0: 40}}, "then")
    assert checkpoint(used).inspect() == Progress(2, {"btc-price": {0: 35}}, {"btc-price": {0: 40}})
    assert (used / "offsets/2").read_text().splitlines()[:2] == ["v1", CONF]
    assert _is_noted(used / "offsets/2"), "its checksum is that of the new content"
    assert (used / "replaced/offsets-2-then").read_text() == before


def test_what_a_planned_micro_batch_reads(used: Path) -> None:
    assert checkpoint(used).range_of(0) == ({}, {"btc-price": {0: 10}}), "the first one has no beginning"
    assert checkpoint(used).range_of(3) == ({"btc-price": {0: 30}}, {"btc-price": {0: 40}})
    (used / "offsets/2").unlink()
    with pytest.raises(CheckpointDamaged, match="offsets/2 is missing"):
        checkpoint(used).range_of(3)


def test_what_spark_says_of_damage_is_said_as_such(used: Path) -> None:
    assert checkpoint(used).damage_of("something else") is None
    failure = f"[CANNOT_LOAD_STATE_STORE.UNCATEGORIZED] ... {used}/state/0/0/3.changelog: checksum"
    assert "state/0/0/3.changelog cannot be read by Spark: run `tickhouse rebuild" in str(
        checkpoint(used).damage_of(failure)
    )


def test_where_the_first_micro_batch_begins_is_kept(tmp_path: Path) -> None:
    made = checkpoint(tmp_path)
    made.claim(IDENTITY)
    assert (made.begins, made.marked, made.existing()) == ({}, False, None)
    made.note_begins({"btc-price": {0: 7}})
    made.note_marked()
    made.keep_existing("{}")
    made.claim(IDENTITY)
    assert (made.begins, made.marked, made.existing()) == ({"btc-price": {0: 7}}, True, b"{}")


def _note_checksum(path: Path) -> None:
    """As Hadoop does it: the length of the pieces, and the CRC-32 of the one piece that a small file is."""
    checksum = zlib.crc32(path.read_bytes()).to_bytes(4, "big")
    path.with_name(f".{path.name}.crc").write_bytes(b"crc\0" + (512).to_bytes(4, "big") + checksum)


def _is_noted(path: Path) -> bool:
    """Whether the checksum beside a file is that of its content, by Hadoop's rule."""
    noted = path.with_name(f".{path.name}.crc").read_bytes()
    return noted[:4] == b"crc\0" and noted[8:] == zlib.crc32(path.read_bytes()).to_bytes(4, "big")


@pytest.mark.parametrize("name", ["offsets/3", "offsets/2", "commits/2"])
def test_no_flipped_bit_changes_what_a_checkpoint_says(used: Path, name: str) -> None:
    path = used / name
    _note_checksum(path)
    content = path.read_bytes()
    assert checkpoint(used).inspect() is not None
    unnoticed = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointDamaged, match=f"{name} cannot be read"):
            checkpoint(used).inspect()
        # Without its checksum many a flipped bit goes by.
        path.with_name(f".{path.name}.crc").rename(used / "checksum")
        with contextlib.suppress(CheckpointDamaged):
            checkpoint(used).inspect()
            unnoticed += 1
        (used / "checksum").rename(path.with_name(f".{path.name}.crc"))
    assert unnoticed > 0


@pytest.mark.parametrize("noted", [b"", b"crc", b"none of Hadoop's"])
def test_checksums_that_are_not_whole_say_nothing(used: Path, noted: bytes) -> None:
    (used / "offsets/.3.crc").write_bytes(noted)
    assert checkpoint(used).inspect() is not None


@pytest.mark.parametrize("name", ["tickhouse.json", "metadata", "existing.json"])
def test_no_flipped_bit_changes_what_is_noted_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    made = checkpoint(tmp_path)
    made.claim(IDENTITY)
    made.note_begins({"btc-price": {0: 7}})
    made.note_marked()
    made.keep_existing('{"existing": {"a": 1}}')
    path, content = tmp_path / name, (tmp_path / name).read_bytes()
    assert _is_noted(path), "Spark, too, compares it"

    def said() -> object:
        again = checkpoint(tmp_path)
        again.claim(IDENTITY)
        return again.query_id, again.begins, again.marked, again.existing()

    told, unnoticed = said(), 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointDamaged, match=f"{name} cannot be read"):
            said()
        path.with_name(f".{name}.crc").rename(tmp_path / "checksum")
        with contextlib.suppress(CheckpointDamaged, CheckpointMismatch, ValueError):
            unnoticed += said() != told
        (tmp_path / "checksum").replace(path.with_name(f".{name}.crc"))
        path.write_bytes(content)
    # Without its checksum many a flipped bit would have changed what the stream goes by.
    assert unnoticed > 0 or name == "metadata"
