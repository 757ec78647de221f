"""`python -m spark_jobs NAME` runs one stream job; settings come from `TICKHOUSE_…` environment variables."""

from __future__ import annotations

import argparse
import logging
import sys

from pydantic import ValidationError

from spark_jobs.settings import StreamSettings
from tickhouse.contract.topology import JOBS
from tickhouse.errors import EXIT_CODE
from tickhouse.leaving import leave


def main() -> int:
    """Parse the command line and run the job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs", description="Run one stream job.")
    parser.add_argument("name", choices=list(JOBS), help="which job")
    name = parser.parse_args().name
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    try:
        settings = StreamSettings()
    except ValidationError as error:
        for fault in error.errors(include_input=False):
            sys.stderr.write(
                f"TICKHOUSE_{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}\n"
            )
        return EXIT_CODE
    # Spark takes seconds to import: not before the settings are known to be right.
    from spark_jobs.run import run

    return run(name, settings)


if __name__ == "__main__":
    leave(main())
