"""How RedisStore asks for many customers at once, without a Redis to ask."""

import pytest

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
