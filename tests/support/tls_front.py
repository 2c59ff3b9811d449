"""TLS in front of a server that was built without it, as the Redis of the wheel is."""

import asyncio
import contextlib
import ssl
from threading import Thread

from streams.stack.ports import LOOPBACK
from tests.support.certificates import Pair

CHUNK = 65_536


class TlsFront:
    """Takes TLS connections on one port of 127.0.0.1 and hands their bytes to another, from a thread of its own."""

    def __init__(self, port: int, to: int, pair: Pair) -> None:
        self._port, self._to = port, to
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="tls-front", daemon=True)

    def start(self) -> None:
        self._thread.start()
        starting = asyncio.start_server(self._serve, LOOPBACK, self._port, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(LOOPBACK, self._to)
        await asyncio.gather(_copy(reader, ahead), _copy(behind, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either side ends, then end the other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
