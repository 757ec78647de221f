"""A webhook on loopback, made to be good, slow, endless or of another opinion."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """A webhook on loopback: what it was told, and how it answers."""

    def __init__(self, port: int = 0) -> None:
        self.texts: list[str] = []
        self.status = 200
        self.slow_seconds = 0.0
        self.endless = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(receiver.slow_seconds)
                if receiver.endless:
                    self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                    try:
                        while True:
                            self.wfile.write(b"X-Drip: drip\r\n")
                            time.sleep(0.05)
                    except OSError:
                        return
                if receiver.status == 200:
                    receiver.texts.append(body["text"])
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}/services/T0/B0/s3cr3t"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
