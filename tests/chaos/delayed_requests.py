"""A proxy in front of a broker that understands Kafka's frames, and can deliver a request long after it was sent.

A request may stay on the way (in a queue of the network, of the broker) while its sender gives the connection up and
tries again on another one. Transactions are torn or lost when such a late request ends the one after it (KAFKA-17754).

The next request of a chosen kind is held and its connection to the client dropped, while that to the broker stays. What
was held is delivered later, on the old connection, between two requests of the client.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

PRODUCE = 0
ADD_PARTITIONS_TO_TXN = 24
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
TXN_OFFSET_COMMIT = 28
"""Numbers of requests: https://kafka.apache.org/protocol."""

_SIZE = struct.Struct(">i")
_KIND = struct.Struct(">h")


@dataclass
class _Plan:
    """One request to hold, and when to let it go."""

    hold: int
    """The kind of request that is held."""
    after: tuple[int, ...]
    """It is delivered once these kinds of requests have been answered, in this order, since the client's next try."""
    retried: bool = False
    held: tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter] | None = None
    delivered: threading.Event = field(default_factory=threading.Event)


class DelayingProxy:
    """Listens on `port` of 127.0.0.1 as soon as it is made, and passes on to `upstream`."""

    def __init__(self, port: int, upstream: int) -> None:
        self.address = f"127.0.0.1:{port}"
        """For clients."""
        self._port = port
        self._upstream = upstream
        self._plan: _Plan | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="delaying proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def delay(self, hold: int, after: tuple[int, ...]) -> Callable[[float], bool]:
        """Hold the next request of the kind `hold`, and deliver it late.

        That is when the client, after its next try of that request, has had answers to requests of the kinds `after`,
        in order. Returns a function that waits for the delivery, so many seconds at most, and says whether there was
        one.
        """
        plan = _Plan(hold, after)
        self._plan = plan
        return plan.delivered.wait

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> None:
        await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()  # what a client sees when nobody listens
            return
        try:
            # One after the other: the client of a test has few requests under way at once, and order is what matters.
            while True:
                frame = await _frame(reader)
                kind = _KIND.unpack_from(frame, _SIZE.size)[0]
                plan = self._plan
                if plan is not None and plan.held is None and kind == plan.hold:
                    plan.held = (frame, far_reader, far_writer)
                    return
                far_writer.write(frame)
                writer.write(await _frame(far_reader))
                await writer.drain()
                if plan is not None and plan.held is not None:
                    await self._advance(plan, kind)
        except (asyncio.IncompleteReadError, OSError):
            far_writer.close()
        finally:
            writer.close()

    async def _advance(self, plan: _Plan, kind: int) -> None:
        """Note that a request has been answered, and deliver what is held if it is time."""
        if not plan.retried:
            plan.retried = kind == plan.hold
        elif plan.after and kind == plan.after[0]:
            plan.after = plan.after[1:]
        if plan.retried and not plan.after and self._plan is plan:
            self._plan = None
            assert plan.held is not None
            frame, reader, writer = plan.held
            writer.write(frame)
            await _frame(reader)
            writer.close()
            plan.delivered.set()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(_SIZE.size)
    return size + await reader.readexactly(_SIZE.unpack(size)[0])
