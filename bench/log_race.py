"""Whether two processes can both commit the same version of a Delta table on a local file system.

    python -m bench.log_race [--versions 3000]

One is Delta's own Java writer, as the streams use it, asked not to overwrite; the other creates the file only where
there is none, as the Rust writer does. It lets the Java writer begin and comes in after a random moment. Prints how
often each was told that it had won, how often both were, and whose commit is there then. Needs Java and the JARs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from orchestration.settings import OrchestrationSettings

_LATEST_SECONDS = 0.002


def main() -> None:
    """Run both writers over the same versions, then compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.log_race", description=__doc__)
    parser.add_argument("--versions", type=int, default=3_000)
    versions = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as name:
        log = Path(name)
        began = multiprocessing.Event()
        results: Any = multiprocessing.Queue()
        writers = [
            multiprocessing.Process(target=writer, args=(log, versions, began, results))
            for writer in (_java_writer, _rust_like_writer)
        ]
        for writer in writers:
            writer.start()
        won = dict(results.get() for _ in writers)
        for writer in writers:
            writer.join()
        both = set(won["java"]) & set(won["rust"])
        there = Counter(_entry(log, version).read_text().strip() for version in both)
    print(f"java won {len(won['java'])}, rust won {len(won['rust'])}, both were told so {len(both)} times")
    print(f"whose commit is there then: {dict(there)}")


def _entry(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def _java_writer(log: Path, versions: int, began: Event, results: Any) -> None:
    from pyspark.java_gateway import launch_gateway

    jars = os.pathsep.join(map(str, OrchestrationSettings.read().jars.glob("*.jar")))
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-class-path {jars} pyspark-shell"
    gateway = launch_gateway()
    jvm: Any = gateway.jvm
    configuration = jvm.org.apache.hadoop.conf.Configuration()
    store = jvm.io.delta.storage.HDFSLogStore(configuration)
    line = jvm.java.util.ArrayList()
    line.add("java")

    def write(path: Path) -> bool:
        try:
            store.write(jvm.org.apache.hadoop.fs.Path(path.as_uri()), line.iterator(), False, configuration)
        except Exception as error:
            if "FileAlreadyExistsException" not in str(error):
                raise
            return False
        return True

    for number in range(100):  # warm: the moment that matters is a short one
        write(log / f"warm-{number}")
    began.set()
    results.put(("java", [version for version in range(versions) if write(_entry(log, version))]))
    gateway.shutdown()


def _rust_like_writer(log: Path, versions: int, began: Event, results: Any) -> None:
    began.wait()
    won = []
    dice = random.Random(1)
    for version in range(versions):
        beginning = f".{version:020d}"
        give_up = time.monotonic() + 5
        while time.monotonic() < give_up and not _entry(log, version).exists():
            if any(entry.name.startswith(beginning) for entry in os.scandir(log)):
                break
        moment = time.monotonic() + dice.uniform(0, _LATEST_SECONDS)
        while time.monotonic() < moment:
            pass
        temporary = log / "rust.next"
        temporary.write_text("rust")
        try:
            os.link(temporary, _entry(log, version))
            won.append(version)
        except FileExistsError:
            pass
        temporary.unlink()
    results.put(("rust", won))


if __name__ == "__main__":
    main()
