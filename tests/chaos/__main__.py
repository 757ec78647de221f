"""`python -m tests.chaos`: breaks a whole stack on purpose while it replays a recording, then judges every result.

    python -m tests.chaos --faults 100 --seed 7 [--folder DIR] [--power MODE] [--break marker|durable]

The stack is `tickhouse up` on adversarial ticks made from the seed. Faults, targets and their order follow from the
seed; the moments depend on the machine as well. Exit code 0: all came back and every topic, table and collection is
right; 1: not; 2: the stack was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from tests.chaos import plan
from tests.chaos.power import PowerFolder
from tests.chaos.report import passed, summary
from tests.chaos.run import Lost, Run
from tests.chaos.victims import Stack
from tests.chaos.volatile_disk import Mode
from tests.reference.stream import disturb, random_walks, write_lines
from tickhouse.settings import path_argument

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SHIBUSDT")
_SPEED = 2
_DISK_MEGABYTES = 3_000
_START_SECONDS = 90
_SECONDS_PER_FAULT = 14


def main() -> int:
    """One run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="drawn and printed if not given")
    parser.add_argument("--faults", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--kinds", default=",".join(plan.KINDS), help="only these kinds of fault, comma-separated")
    parser.add_argument(
        "--folder", type=path_argument, help="where the stack lives; kept. Otherwise one that is removed"
    )
    parser.add_argument(
        "--power", choices=get_args(Mode), help="the stack lives, durable, on a disk that can be cut off"
    )
    broken = ("marker", "durable")
    parser.add_argument("--break", dest="broken", choices=broken, help="take a safeguard away: must be found out")
    options = parser.parse_args()
    # An end from outside takes the stack down like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    faults = plan.draw(options.seed, options.faults, options.kinds.split(","))
    print(f"seed {options.seed}: {len(faults)} faults", flush=True)
    with ExitStack() as stack:
        folder = options.folder
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="tickhouse-chaos-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if options.power is None:
            disk, power = _small_disk(folder / "disk", stack), None
        else:
            disk, power = None, stack.enter_context(PowerFolder(folder / "power", options.power, options.seed))
        return _run(options.seed, faults, folder, disk, power, options.broken)


def _run(
    seed: int,
    faults: list[plan.Fault],
    folder: Path,
    disk: Path | None,
    power: PowerFolder | None,
    broken: str | None,
) -> int:
    recording = folder / "ticks.jsonl.gz"
    # Enough for all faults to fall into the stream, at some 9 ticks a second and symbol in its own time.
    each = (_START_SECONDS + len(faults) * _SECONDS_PER_FAULT) * _SPEED * 9
    lines = disturb(random_walks(seed, SYMBOLS, each * len(SYMBOLS), gaps=0), seed, lag=5_000)
    write_lines(recording, lines)
    print(f"{len(lines)} messages of {len(SYMBOLS)} symbols in {recording}", flush=True)
    place = power.folder if power is not None else disk or folder
    durable = power is not None and broken != "durable"
    victim = Stack(place / "home", recording, broken == "marker", durable)
    try:
        run = Run(victim, faults, seed, lambda sentence: print(sentence, flush=True), str(_SPEED), disk, power)
        records = run.break_it()
        report = run.verdict(recording)
    except Lost as lost:
        print(lost)
        return 2
    finally:
        victim.close()
        # The small disk is gone when the run ends.
        shutil.copytree(victim.home / "logs", folder / "logs", dirs_exist_ok=True)
    print(f"\nseed {seed}\n{summary(records, report)}")
    return 0 if passed(records, report) else 1


def _small_disk(folder: Path, cleanup: ExitStack) -> Path | None:
    """A file system in memory that can be filled without harm to anyone else; None where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        print("no file system can be mounted here: the disk is not filled in this run", flush=True)
        return None
    cleanup.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
    return folder


if __name__ == "__main__":
    sys.exit(main())
