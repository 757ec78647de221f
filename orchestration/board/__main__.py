"""`python -m orchestration.board`: serves the board until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from functools import partial
from types import FrameType

from waitress.server import create_server

from orchestration.board.app import make_application
from orchestration.board.watcher import Watcher
from orchestration.local.ports import LOOPBACK
from orchestration.settings import OrchestrationSettings, SettingsError

_THREADS = 8
_LONGEST_QUESTION_BYTES = 100_000


def main() -> int:
    """Serve; returns the exit code: 2 for settings that are wrong, 1 for a port that is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.board", description="A live page on the pipeline.")
    parser.add_argument("--home", help="folder of all data: TICKHOUSE_HOME, else .tickhouse")
    parser.add_argument("--port", type=int, help="to listen on: TICKHOUSE_BOARD_PORT, else 8501")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on: in a container, all it has")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A page that opens asks for all its files at once: that they wait for each other is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        read_settings = partial(OrchestrationSettings.read, home=options.home, board_port=options.port)
        port = read_settings().board_port
        watcher = Watcher(read_settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        server = create_server(
            make_application(watcher),
            host=options.host,
            port=port,
            threads=_THREADS,
            ident=None,
            max_request_body_size=_LONGEST_QUESTION_BYTES,
        )
    except OSError as error:
        sys.stderr.write(f"the board cannot listen on port {port}: {error}\n")
        return 1
    signal.signal(signal.SIGTERM, _stop)
    logging.info("the board is at http://%s:%s", options.host, server.effective_port)
    with watcher:
        # Ends for SystemExit and KeyboardInterrupt.
        server.run()
    return 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
