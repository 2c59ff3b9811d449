"""The first look at a Redis: passing refusals are tried again, lasting ones are told."""

from typing import Any

import pytest
from redis import exceptions

from streams.errors import AccessDenied, StoreUnavailable, UnsafeStore
from streams.stores.entry import enter, refused, rehearsal
from streams.stores.wire import Wire

INFO = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "role": "master", "redis_mode": "standalone"}


def info(**changed: str) -> bytes:
    return "\r\n".join(f"{name}:{value}" for name, value in (INFO | changed).items()).encode()


class Connection:
    """Answers as often as it is asked: with what is prepared, then with OK."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers, *[b"OK"] * len(rehearsal("app"))]

    async def send_packed_command(self, *_: Any, **__: Any) -> None: ...

    async def disconnect(self, **_: Any) -> None: ...

    async def read_response(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def wire(*connections: Connection) -> Wire:
    """A Wire over these connections, one an attempt; the last one serves all later ones."""
    made = Wire(
        "redis://user:secret@cache/0", limit=1, timeout_ms=1_000, connect_timeout_ms=1_000, retry_ms=200, options={}
    )
    rest = list(connections)
    made._connection_class = lambda **_: rest.pop(0) if len(rest) > 1 else rest[0]  # type: ignore[assignment]
    return made


async def test_a_busy_redis_is_asked_again() -> None:
    """An error that may pass is no bug of ours: the next attempt serves."""
    await enter(
        wire(Connection(exceptions.ResponseError("BUSY Redis is busy running a script")), Connection(info())), "app"
    )
    busy = [Connection(exceptions.ResponseError("BUSY Redis is busy")) for _ in range(50)]
    with pytest.raises(StoreUnavailable, match="BUSY"):
        await enter(wire(*busy), "app")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"redis_version": "6.0.16"}, "needs 6.2"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"role": "slave"}, "is a replica"),
        ({"redis_mode": "cluster"}, "is a cluster"),
    ],
)
async def test_a_redis_that_may_lose_state_is_refused(changed: dict[str, str], words: str) -> None:
    """Too old, evicting, a replica, a cluster."""
    with pytest.raises(UnsafeStore, match=words):
        await enter(wire(Connection(info(**changed))), "app")


async def test_what_is_forbidden_is_named() -> None:
    """The command and its key, whichever it is."""
    number = next(place for place, command in enumerate(rehearsal("app")) if command[0] == "ZADD")
    answers = [b"OK"] * number
    with pytest.raises(AccessDenied, match=r"\(ZADD \{app:0\}:t\)"):
        await enter(wire(Connection(info(), *answers, exceptions.NoPermissionError("NOPERM"))), "app")


def test_what_is_no_refusal_stays_what_it_is() -> None:
    """A connection that cannot be made says nothing of who we are."""
    assert refused(OSError(111, "Connection refused"), "Redis at cache:6379") is None
