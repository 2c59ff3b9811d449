"""Exchanges with one Redis: few connections, one packed write and one read of all replies each, bounded time, retries.

redis-py opens the connections (TLS, ACL, URL options); commands are packed and replies read here, because its
asynchronous pipelines pack in Python, put arguments (customer data) into error texts, and report a lost
connection as a WatchError.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url

from streams.errors import InvalidSettings, StoreUnavailable, UnsafeStore

T = TypeVar("T")
Command = tuple[str | bytes | int, ...]

LOST = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.InvalidResponse, OSError, EOFError)
_pack: Callable[[Command], bytes] = cast(Any, pack_command)  # its stub knows only tuples of one
_MULTI, _EXEC = ("MULTI",), ("EXEC",)
_BACKOFF_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


class Refused(Exception):
    """Redis answered with an error instead of doing what was asked; nothing was done."""


def refusal(error: BaseException) -> str:
    """Name the kind of an error, without the text of an answer of Redis, which may quote arguments."""
    if isinstance(error, OSError) or type(error) is exceptions.ConnectionError:
        return f"{type(error).__name__} ({error})"
    code = str(error).partition(" ")[0]
    return code if type(error) is exceptions.ResponseError and code.isupper() else type(error).__name__


class Wire:
    """At most `limit` connections to one Redis; times in ms.

    timeout_ms bounds one attempt (connecting, sending, all replies), retry_ms the attempts of one operation.
    """

    def __init__(
        self, url: str, *, limit: int, timeout_ms: int, connect_timeout_ms: int, retry_ms: int, options: dict[str, Any]
    ) -> None:
        try:
            parsed: dict[str, Any] = {**options, **parse_url(url)}
            self._connection_class: Callable[..., AbstractConnection] = parsed.pop("connection_class", Connection)
            # Replies are read as RESP2 and bytes; the timeout of the attempt covers every read.
            parsed |= {"protocol": 2, "decode_responses": False, "socket_timeout": None}
            parsed.setdefault("socket_connect_timeout", connect_timeout_ms / 1000)
            self._options = parsed
            self._connection_class(**parsed)
        except (ValueError, TypeError, exceptions.RedisError) as error:
            # Not the error's text, nor the chain: a misread URL shows pieces of its password there.
            raise InvalidSettings(
                f"PULSELINE_REDIS_URL or its options cannot be used ({type(error).__name__}). In user and password "
                "signs such as / : @ # % are written as %2F and so on; or it stands in PULSELINE_REDIS_PASSWORD"
            ) from None
        self.encrypted = self._connection_class is SSLConnection
        self.address = f"{parsed.get('path') or parsed.get('host', 'localhost')}:{parsed.get('port', 6379)}"
        self._timeout_s = timeout_ms / 1000
        self._retry_s = retry_ms / 1000
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[AbstractConnection] = []
        self._closed = False

    async def run(self, operation: Callable[[AbstractConnection], Awaitable[T]]) -> T:
        """Run an operation, again on a fresh connection where its outcome is unknown or Redis refused it.

        So the operation itself must find out whether an earlier attempt was done. Raises StoreUnavailable in the end.
        """
        deadline = asyncio.get_running_loop().time() + self._retry_s
        attempt = 0
        while True:
            try:
                async with self._lease(fresh=attempt > 0) as connection, asyncio.timeout(self._timeout_s):
                    return await operation(connection)
            except (*LOST, Refused) as error:
                delay = _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]
                hopeless = isinstance(error, exceptions.AuthenticationError)
                if hopeless or asyncio.get_running_loop().time() + delay > deadline:
                    reason = str(error) if isinstance(error, Refused) else refusal(error)
                    raise StoreUnavailable(
                        f"Redis at {self.address} does not serve: {reason}, {attempt + 1} attempts"
                    ) from error
            await asyncio.sleep(delay)
            attempt += 1

    @asynccontextmanager
    async def _lease(self, *, fresh: bool) -> AsyncIterator[AbstractConnection]:
        async with self._slots:
            if fresh:
                await self._drop_idle()
            connection = self._idle.pop() if self._idle else self._connection_class(**self._options)
            try:
                yield connection
            except BaseException:
                # It may be watching, or hold replies that nobody read.
                await connection.disconnect(nowait=True)
                raise
            if self._closed:
                await connection.disconnect()
            else:
                self._idle.append(connection)

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the idle connections now and those in use when their operation ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()


async def exchange(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    """Send commands in one write; return their replies, error replies as exceptions in place."""
    await connection.send_packed_command(b"".join(map(_pack, commands)), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except exceptions.ResponseError as error:
            replies.append(error)
    return replies


async def ask(connection: AbstractConnection, *commands: Command) -> list[Any]:
    """Exchange commands of which none may fail; Refused if one does."""
    replies = await exchange(connection, commands)
    for reply in replies:
        if isinstance(reply, exceptions.ResponseError):
            raise Refused(refusal(reply)) from reply
    return replies


async def transact(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any] | None:
    """Exchange commands within MULTI and EXEC; None where a watched key changed, so that nothing was done.

    Raises Refused where Redis would not queue or execute them, UnsafeStore where one of them failed inside EXEC.
    """
    replies = await exchange(connection, [_MULTI, *commands, _EXEC])
    done = replies[-1]
    if isinstance(done, exceptions.ResponseError):
        cause = next(reply for reply in replies if isinstance(reply, exceptions.ResponseError))
        raise Refused(refusal(cause)) from cause
    if done is None:
        return None
    for reply in done:
        if isinstance(reply, exceptions.ResponseError):
            raise UnsafeStore(
                f"a command failed inside a transaction ({refusal(reply)}): a key is not what Pulseline wrote"
            )
    return list(done)
