"""How RedisStore asks, without a Redis to ask: in pieces, and watching what it compares."""

from collections.abc import Awaitable, Callable

import pytest

from streams.processing.ports import Commit
from streams.stores.redis import RedisStore
from streams.stores.wire import Command


async def test_many_customers_are_asked_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer holds 2,000 customers at most, so that neither side holds 100,000 in one piece of memory."""
    store, asked = RedisStore("redis://127.0.0.1:1/0", "app"), list[int]()

    async def answer(_partition: int, _vers: object, commands: list[Command]) -> list[list[None]]:
        asked.append(sum(len(command) - 2 for command in commands) // 2)
        return [[None] * (len(command) - 2) for command in commands]

    monkeypatch.setattr(store, "_guarded", answer)
    loaded = await store.load(0, ["v"], [f"c-{number}" for number in range(4_001)])
    assert asked == [2_000, 2_000, 1]
    assert len(loaded) == 4_001
    await store.close()


async def test_what_is_compared_is_watched_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EXEC that a change prevented did nothing: the ver is looked at anew, under a new WATCH."""
    asked: list[tuple[Command, ...]] = []
    page = [1, b"meta", [], [], None, [], 0, 1]
    answers: list[list[object] | None] = [None, [], page]

    async def ask(_connection: object, *commands: Command) -> list[bytes]:
        asked.append(commands)
        return [b"OK", b"v1"]

    async def transact(_connection: object, _commands: object) -> list[object] | None:
        return answers.pop(0)

    monkeypatch.setattr("streams.stores.redis.ask", ask)
    monkeypatch.setattr("streams.stores.redis.transact", transact)
    store = RedisStore("redis://127.0.0.1:1/0", "app")

    async def run(operation: Callable[[object], Awaitable[object]]) -> object:
        return await operation(None)

    monkeypatch.setattr(store._wire, "run", run)
    await store.commit(Commit(3, "v1", "v2", b"meta"))
    assert (await store.claim(3, "v3")).ver == "v1"
    assert asked == [(("WATCH", "{app:3}:m"), ("HGET", "{app:3}:m", "ver"))] * 3
