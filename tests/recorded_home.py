"""A home with history, recorded by one version of Tickhouse for later ones to go on with.

    python -m tests.recorded_home tests/data/home-spark-4.1.tar.xz

records one with the code and the packages that it runs with. The stack is stopped in the middle of its work: a
micro-batch of `moving` is planned and not committed, messages are not yet copied to their tables, results are not yet
final. The archive holds the home and the ticks: `sent.jsonl`, which it has read, and `rest.jsonl`, which come after.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from orchestration.local import processes
from tests.reference.stream import generate
from tests.running_stack import TICKHOUSE, stack, wait_until
from tickhouse.contract.topology import TOPICS

# Checkpoints and endpoints note where they are: a folder that says nothing of the machine.
_FOLDER = Path("/tmp/tickhouse-recording")
_STREAM = "moving"
_LEFT_OUT = ("logs", "run", "replay", "dagster", "endpoints.json", "tickhouse.lock")
"""Made anew at each start, and full of the recording machine's paths and process numbers."""
_NOBODY = {"uid": 0, "gid": 0, "uname": "", "gname": ""}


def unpack(archive: Path, folder: Path) -> None:
    """Put `home`, `sent.jsonl` and `rest.jsonl` into a folder."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder)


def record(archive: Path) -> None:
    """Run a stack, stop it in the middle of its work, and pack what is left."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    home = _FOLDER / "home"
    home.mkdir(parents=True)
    lines = [line.value for line in generate(seed=14, symbols=("BTCUSDT", "ETHUSDT", "SHIBUSDT"), ticks=3_000)]
    parts = {"first": lines[:1_200], "second": lines[1_200:2_000], "rest": lines[2_000:], "sent": lines[:2_000]}
    for name, some in parts.items():
        (_FOLDER / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in some))
    output = _FOLDER / "up.log"
    source = ("--source", f"replay:{_FOLDER / 'first.jsonl'}", "--speed", "max", "--no-ui")
    with stack(home, output, *source) as up:
        seen = wait_until(lambda seen: bool(seen["drained"]), home, up, output, 300)
        _keep_for_ever(seen["kafka_bootstrap"])
        replay = [TICKHOUSE, "replay", str(_FOLDER / "second.jsonl"), "--home", str(home), "--speed", "max"]
        with subprocess.Popen(replay) as sending:
            _kill_in_the_middle(home)
            sending.wait(timeout=60)
        subprocess.run([TICKHOUSE, "down", "--home", str(home)], check=True, timeout=180)
    _pack(home, archive)
    # Where a checkpoint's place is still there, whoever goes on with it elsewhere is refused.
    shutil.rmtree(_FOLDER)


def _keep_for_ever(bootstrap: str) -> None:
    """The messages, which the broker would otherwise remove a week after they were recorded."""
    keep = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    resources = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[keep]) for topic in TOPICS]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)


def _kill_in_the_middle(home: Path) -> None:
    """Kill the stream while a micro-batch is planned and not committed."""
    process = processes.recorded(home, _STREAM)
    assert process is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if is_planned(home):
            os.killpg(process.pid, signal.SIGSTOP)
            if is_planned(home):
                os.killpg(process.pid, signal.SIGKILL)
                return
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.002)
    raise TimeoutError(f"no micro-batch of {_STREAM} was seen under way")


def is_planned(home: Path) -> bool:
    """Whether a micro-batch of `moving` is planned and not committed."""
    return _last(home, "offsets") > _last(home, "commits")


def _last(home: Path, log: str) -> int:
    folder = home / "checkpoints" / _STREAM / log
    return max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)


def _pack(home: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in ("sent.jsonl", "rest.jsonl"):
            packed.add(_FOLDER / name, name, filter=_anonymous)
        for part in sorted(home.iterdir()):
            if part.name not in _LEFT_OUT:
                packed.add(part, f"home/{part.name}", filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    for field, nobody in _NOBODY.items():
        setattr(entry, field, nobody)
    # mongod makes these ahead of need.
    return None if Path(entry.name).name.startswith("WiredTigerPreplog") else entry


if __name__ == "__main__":
    record(Path(sys.argv[1]))
