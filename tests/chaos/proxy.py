"""A TCP proxy in front of the broker that can be cut: connections stay open, and nothing comes through any more.
It can be made slow, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

_CHUNK = 65_536
_GLANCE_SECONDS = 0.05


class Proxy:
    """Listens on `port` of 127.0.0.1 as soon as it is made; `upstream` tells the port to pass on to."""

    def __init__(self, port: int, upstream: Callable[[], int]) -> None:
        self._port = port
        self._upstream = upstream
        self._rate: float | None = None
        self._open = threading.Event()
        self._open.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._open.clear()

    def restore(self) -> None:
        """Let everything through again, what has waited first."""
        self._open.set()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Let each client send no more from now on; None = as fast as it goes."""
        self._rate = bytes_per_second

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> None:
        await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._opened()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream())
        except OSError:
            writer.close()  # what a client sees when nobody listens
            return
        await asyncio.gather(self._pass_on(reader, far_writer, slowly=True), self._pass_on(far_reader, writer))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._opened()
                if slowly and self._rate is not None:
                    await asyncio.sleep(len(chunk) / self._rate)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def _opened(self) -> None:
        while not self._open.is_set():
            await asyncio.sleep(_GLANCE_SECONDS)
