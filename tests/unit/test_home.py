"""Homes: the marker, what a removal deletes, and all that it leaves alone."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.local import home as homes
from orchestration.local.broker import Broker
from orchestration.local.home_lock import AlreadyRunning, only_instance
from orchestration.local.home_marker import MARKER, NotOurs, read_marker
from orchestration.settings import PROJECT_ROOT
from orchestration.stack.lifecycle import remove_data

MADE = (
    "kafka/data/btc-price-0/00000000000000000000.log",
    "kafka/server.properties",
    "mongo/WiredTiger.wt",
    "mongo/journal/WiredTigerLog.0000000001",
    "lakehouse/prices/_delta_log/00000000000000000000.json",
    "lakehouse/prices/date=2025-05-08/part-0.parquet",
    "checkpoints/moving/commits/0",
    "dagster/history/runs.db",
    "run/up.wanted.json",
    "tmp/moving/libsnappy.so",
    "locks/prices.lock",
    "logs/kafka.log",
    "logs/kafka.log.1",
    "replay/run/producer.heartbeat.json",
    "alerts.jsonl",
    "hs_err_pid17086.log",
    "endpoints.json",
    ".endpoints.json.x7",
)
OTHERS = (
    "notes.txt",
    "lakehouse/mine/part-0.parquet",
    "lakehouse/prices.bak/part-0.parquet",
    "logs/keep.txt",
    "mongo/dump.json",
    "run/secret",
    "kafkaesque/novel",
)


def fill(home: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x" * 100)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    homes.mark(folder)
    fill(folder, MADE)
    return folder


def test_a_home_is_removed_whole(home: Path) -> None:
    said = homes.look(home)
    assert sum(tally.files for tally in said.parts.values()) == len(MADE)
    assert all(tally.size_bytes > 0 for tally in said.parts.values())
    done = remove_data(home)
    assert not home.exists()
    assert (done.parts, done.stays) == (said.parts, [])


def test_what_others_put_there_stays_and_is_named(home: Path) -> None:
    fill(home, OTHERS)
    said = homes.look(home)
    assert remove_data(home).stays == said.stays
    assert files(home) == {*OTHERS, MARKER, "tickhouse.lock"}
    assert {path.name for path, reason in said.stays if reason == "not made by Tickhouse"} == {
        *("notes.txt", "mine", "prices.bak", "keep.txt", "dump.json", "secret", "kafkaesque")
    }
    (home / "logs" / "keep.txt").unlink()
    homes.mark(home)  # still a home, which can be started, and removed again
    fill(home, MADE)
    remove_data(home)
    assert files(home) == {*OTHERS, MARKER, "tickhouse.lock"} - {"logs/keep.txt"}


@pytest.mark.parametrize("place", ["lakehouse", "lakehouse/prices/date=2025-05-08/more", "logs/up.log", "outside"])
def test_links_are_not_followed(home: Path, tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    fill(elsewhere, ("prices/precious", "precious"))
    link = home / place
    if link.is_dir():
        link.rename(tmp_path / "out of the way")
    link.symlink_to(elsewhere, target_is_directory=True)
    done = remove_data(home)
    assert files(elsewhere) == {"prices/precious", "precious"}
    assert [path for path, _ in done.stays] == [link]
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("kind", [("--bind",), ("-t", "tmpfs")])
def test_mounts_are_not_entered(home: Path, tmp_path: Path, kind: tuple[str, ...]) -> None:
    source, point = tmp_path / "disk", home / "lakehouse" / "zscores"
    source.mkdir()
    point.mkdir(parents=True)
    if subprocess.run(["mount", *kind, str(source), str(point)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        (point / "precious").touch()
        assert [path for path, _ in remove_data(home).stays] == [point]
        assert (point / "precious").exists()
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_home_that_a_link_leads_to_is_emptied(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    assert [path for path, _ in remove_data(link).stays] == [home]
    assert files(home) == {MARKER, "tickhouse.lock"}
    assert homes.obstacle(link) is None


@pytest.mark.parametrize("inside", ["", "logs", "lakehouse/prices"])
def test_the_current_folder_stays(home: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / inside)
    remove_data(home)
    assert Path.cwd() == home / inside
    assert files(home) == {MARKER, "tickhouse.lock"}


@pytest.mark.parametrize("folder", ["/", "~", str(PROJECT_ROOT), str(PROJECT_ROOT.parent)])
def test_some_folders_are_no_homes_even_when_marked(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    homes.mark(tmp_path)
    with pytest.raises(NotOurs, match="it is no home, and nothing is deleted"):
        remove_data(Path(folder).expanduser())
    assert files(tmp_path) == {MARKER}


def _remove_marker(marker: Path) -> None:
    marker.unlink()


def _forget_files(marker: Path) -> None:
    marker.unlink()
    (marker.parent / "kafka" / "server.properties").write_text("# Written at each start; changes are lost.\n")


def _link(marker: Path) -> None:
    marker.rename(marker.with_name("other.json"))
    marker.symlink_to("other.json")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_remove_marker, "is not a home of tickhouse: there is nothing to delete"),
        (_forget_files, "a version that did not mark its homes: start it once with `tickhouse up`"),
        (_link, "is damaged"),
        (lambda marker: marker.write_text(""), "is damaged"),
        (lambda marker: marker.write_text('{"product":"other","kind":"home","id":"","format":1}'), "is damaged"),
        (lambda marker: marker.write_text(marker.read_text().replace('"home"', '"tools"')), "is a tools folder"),
        (lambda marker: marker.write_text(marker.read_text().replace(": 1", ": 2")), "by a later version"),
    ],
)
def test_without_a_valid_marker_nothing_is_removed(home: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(home / MARKER)
    before = files(home)
    with pytest.raises(NotOurs, match=sentence):
        remove_data(home)
    assert files(home) == before


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotOurs, match="is not a home"):
        remove_data(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_removal_can_be_repeated_after_an_interruption(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, left = os.unlink, iter(range(5))

    def fail_in_the_end(name: str, *, dir_fd: int) -> None:
        if next(left, None) is None:
            raise PermissionError(13, "Permission denied", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", fail_in_the_end)
    with pytest.raises(PermissionError) as failure:
        remove_data(home)
    assert Path(failure.value.filename).is_relative_to(home)
    monkeypatch.undo()
    remove_data(home)
    assert not home.exists()


@pytest.mark.parametrize("name", ["kafka", "lakehouse", "logs"])
def test_a_folder_with_such_things_of_somebody_else_does_not_become_a_home(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(NotOurs, match=f"contains {name}, which Tickhouse did not make"):
        homes.mark(tmp_path)
    assert files(tmp_path) == set()


def test_homes_of_earlier_versions_get_the_marker_and_keep_it(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "notes.txt").touch()
    node = Broker(tmp_path / "kafka", 1, 2)
    node.directory.mkdir()
    node.write_properties(node.directory / "data")
    (tmp_path / "tmp").touch()
    with pytest.raises(NotOurs, match="contains tmp, which Tickhouse did not make"):
        homes.mark(tmp_path)
    (tmp_path / "tmp").unlink()
    homes.mark(tmp_path)
    first = read_marker(tmp_path, "home")
    homes.mark(tmp_path)
    assert first is not None
    assert read_marker(tmp_path, "home") == first


def test_a_start_that_waited_for_a_removal_makes_a_home_of_its_own(home: Path) -> None:
    held, starting = threading.Event(), threading.Event()

    def start() -> None:
        held.wait()
        starting.set()
        with only_instance(home):
            homes.mark(home)
            with pytest.raises(AlreadyRunning), only_instance(home):
                pass

    started = threading.Thread(target=start)
    started.start()
    with only_instance(home):
        held.set()
        starting.wait()
        threading.Event().wait(0.1)  # it now waits for the lock
        homes.remove(home)
    started.join()
    assert files(home) == {MARKER, "tickhouse.lock"}
