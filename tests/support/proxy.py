"""A TCP proxy that breaks connections on order: before a request, behind it, or with the request still on its way."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Where = Literal["before", "reply", "held"]


@dataclass(slots=True)
class _Order:
    marker: bytes
    where: Where
    then: Callable[[], object] | None


class Proxy:
    """Passes bytes between clients and one server: `async with Proxy(url) as proxy`, then connect to `proxy.url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._parts = parts
        self._orders: list[_Order] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self.delay_s = 0.0
        """Every answer comes so much later."""
        self.broken = 0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        credentials, at, _ = self._parts.netloc.rpartition("@")
        self.url = self._parts._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for writer, _ in self._held:
            writer.close()

    def break_at(self, marker: bytes, where: Where, then: Callable[[], object] | None = None) -> None:
        """Break the connection at the next request that contains the marker.

        before: the server never sees it. reply: the server answers, the client never sees that. held: the client's side
        breaks, the request arrives at `release`. `then` runs before the client notices; a coroutine from it is awaited.
        """
        self._orders.append(_Order(marker, where, then))

    def stall(self) -> None:
        """Take requests and answer nothing, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def retarget(self, url: str) -> None:
        """Lead to another server from now on, and break every connection to the one before."""
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        for connection in self._connections:
            connection.cancel()

    async def release(self) -> None:
        """Let the held requests arrive, and wait until the server answered them."""
        held, self._held = self._held, []
        for writer, data in held:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        back = asyncio.create_task(self._pass_back(server_reader, writer))
        held = False
        try:
            while data := await reader.read(1 << 20):
                await self._flowing.wait()
                order = self._ordered(data)
                if order is None:
                    server_writer.write(data)
                    await server_writer.drain()
                    continue
                self.broken += 1
                back.cancel()
                await asyncio.wait([back])
                if order.where == "reply":
                    server_writer.write(data)
                    await server_reader.read(1 << 20)
                if order.where == "held":
                    held = True
                    self._held.append((server_writer, data))
                outcome = order.then() if order.then else None
                if asyncio.iscoroutine(outcome):
                    await outcome
                break
        finally:
            back.cancel()
            if not held:
                server_writer.close()

    async def _pass_back(self, server_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await server_reader.read(1 << 20):
                await self._flowing.wait()
                await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()

    def _ordered(self, data: bytes) -> _Order | None:
        for order in self._orders:
            if order.marker in data:
                self._orders.remove(order)
                return order
        return None
