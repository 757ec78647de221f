"""A process that behaves towards its supervisor as a stream job does, without Spark: `python stand_in.py NAME`.

How it ends is said in `<home>/<NAME>.behaviour`: `die` fails at once, `refuse` does so saying that no restart can help,
`unready` never gets to work, `halfway` is stopped by somebody before it is done; else it runs until SIGTERM, or ends at
once with trigger available_now.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    name = sys.argv[1]
    home = Path(os.environ["TICKHOUSE_HOME"])
    said = home / f"{name}.behaviour"
    behaviour = said.read_text() if said.exists() else "run"
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))

    def beat(state: str, **fields: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        content = {"job": name, "pid": os.getpid(), "state": state, "error": None, "retry": True, "written_at": now}
        target = home / "run" / f"{name}.heartbeat.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(content | {"input_rows": 7, "rejects": 0, "queries": {}} | fields))
        partial.replace(target)

    beat("starting")
    if behaviour in ("die", "refuse"):
        sys.stderr.write("something is amiss\n")
        beat("failed", error=f"it was told to {behaviour}", retry=behaviour == "die")
        return 1
    while not stopping and os.environ["TICKHOUSE_TRIGGER"] == "continuous":
        beat("starting" if behaviour == "unready" else "running")
        time.sleep(0.1)
    if os.environ["TICKHOUSE_TRIGGER"] == "available_now":
        done = behaviour != "halfway"
        beat("done" if done else "stopped")
        return 0 if done else 143
    beat("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
