"""MemoryStore's own: going back in time, losing everything, failing on order, and telling what was done."""

from typing import Any

import pytest

from streams.errors import Fenced, StoreUnavailable
from streams.processing.ports import Commit, Stored
from streams.stores.memory import MemoryStore


def commit(base: str | None, new: str, partition: int = 0, **changes: Any) -> Commit:
    return Commit(partition, base, new, new.encode(), **changes)


def numbered(number: int) -> Commit:
    """Commit `number` of a chain, every part of which tells the number."""
    packed = str(number).encode()
    return commit(
        f"v{number - 1}" if number else None,
        f"v{number}",
        hot={"a": packed, f"only-{number}": packed},
        cold={"a": packed, f"only-{number - 1}": None},
        timers={"a": number, f"only-{number}": 1, f"only-{number - 1}": None},
        sessions={"a": number},
        outputs=packed,
        accumulators={"m": number, f"m{number}": 1, f"m{number - 1}": None},
        now_ms=number * 30_000,
    )


async def everything(store: MemoryStore, ver: str) -> list[Any]:
    return [
        await store.read(0),
        await store.load(0, [ver], ["a", *(f"only-{number}" for number in range(6))]),
        await store.timers(0, [ver], 0, 99, 99),
        await store.sessions(0, [ver], 0, 99, 99),
        await store.accumulators(0),
        [await store.accumulators_changed(0, f"v{number}") for number in range(6)],
    ]


async def test_a_failover_is_an_earlier_commit_in_every_part() -> None:
    """After losing n writes the store is what it was before them, whichever n, and the chain goes on from there."""
    then = []
    store = MemoryStore()
    for number in range(6):
        await store.commit(numbered(number))
        then.append(await everything(store, f"v{number}"))
    for number in (4, 3, 0):
        store.fail_over(int((await store.ver(0) or "")[1:]) - number)
        assert await everything(store, f"v{number}") == then[number]
    with pytest.raises(Fenced):
        await store.commit(numbered(3))
    await store.commit(numbered(1))
    assert await everything(store, "v1") == then[1]


async def test_a_failover_takes_all_tasks_back_together() -> None:
    """Redis is one: writes of all tasks, claims and published values are lost in the order they came."""
    store = MemoryStore()
    await store.commit(commit(None, "p0", partition=0))
    await store.commit(commit(None, "p1", partition=1))
    await store.write_published(["p0"], {"f": b"1"})
    await store.claim(1, "p1b")
    store.fail_over(2)
    assert (await store.published(), await store.ver(1)) == ({}, "p1")
    store.fail_over(1)
    assert (await store.ver(0), await store.ver(1)) == ("p0", None)
    store.fail_over(99)
    assert await store.ver(0) is None
    assert store.writes == 0


async def test_history_is_bounded() -> None:
    """Only the newest writes can be undone; what is older stays."""
    store = MemoryStore(history_max=2)
    for number in range(5):
        await store.commit(numbered(number))
    store.fail_over(99)
    assert await store.ver(0) == "v2"


async def test_wipe_loses_everything() -> None:
    """After a wipe there is no state, no deployment and nothing to fail over to."""
    store = MemoryStore()
    await store.deployment({"partitions": "1"})
    await store.commit(numbered(0))
    store.wipe()
    store.fail_over(1)
    assert await store.read(0) is None
    await store.deployment({"partitions": "2"})


async def test_unavailable_does_nothing_and_unknown_does_it() -> None:
    """Both raise StoreUnavailable; the same commit again then succeeds, and is done once."""
    store = MemoryStore()
    await store.commit(numbered(0))
    for kind, ver in (("unavailable", "v0"), ("unknown", "v1")):
        store.fail_next(kind, operation="commit")  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable):
            await store.commit(numbered(1))
        assert await store.ver(0) == ver
    await store.commit(numbered(1))
    assert store.effects == [("commit", 0, None, "v0"), ("commit", 0, "v0", "v1")]


@pytest.mark.parametrize("kind", ["before", "reply_lost"])
async def test_a_broken_commit_is_resolved_by_ver(kind: Any) -> None:
    """Left alone it is done once. With a failover in between it is done again. With a claim in between it is fenced."""
    store = MemoryStore()
    await store.commit(numbered(0))
    store.fail_next(kind)
    await store.commit(numbered(1))
    store.fail_next(kind, then=lambda: store.fail_over(1 if kind == "reply_lost" else 0))
    await store.commit(numbered(2))
    assert await store.load(0, ["v2"], ["a"]) == {"a": (b"2", b"2")}

    store.fail_next(kind, then=lambda: run_at_once(store.claim(0, "rival")))
    with pytest.raises(Fenced):
        await store.commit(numbered(3))
    assert store.effects[-1] == ("fenced", 0, "rival", ("v2",))


def run_at_once(coroutine: Any) -> None:
    """Run a coroutine that never waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize("kind", ["before", "reply_lost"])
async def test_a_broken_claim_returns_the_ver_before_it(kind: Any) -> None:
    """As with Redis: the claim is done, and tells which commit it found."""
    store = MemoryStore()
    await store.commit(commit(None, "v0"))
    store.fail_next(kind, operation="claim")
    assert await store.claim(0, "v1") == Stored("v0", b"v0")
    assert [effect[0] for effect in store.effects] == ["commit", "claim"]


async def test_faults_wait_for_their_operation() -> None:
    """A fault ordered for loads lets commits pass; each goes off once, in order."""
    store = MemoryStore()
    store.fail_next("unavailable", operation="load")
    store.fail_next("unavailable", operation="load")
    await store.commit(numbered(0))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.load(0, ["v0"], ["a"])
    assert await store.load(0, ["v0"], ["a"]) == {"a": (b"0", b"0")}


async def test_steps_can_be_watched_and_interrupted() -> None:
    """on_step sees each operation; a worker that dies behind its write leaves the write."""
    seen: list[tuple[str, str, int]] = []

    async def on_step(when: str, operation: str, partition: int) -> None:
        seen.append((when, operation, partition))
        if (when, operation) == ("after", "commit"):
            raise KeyboardInterrupt

    shared: list[Any] = ["before"]
    store = MemoryStore(effects=shared, on_step=on_step)
    with pytest.raises(KeyboardInterrupt):
        await store.commit(numbered(0))
    assert await store.ver(0) == "v0"
    assert seen == [("before", "commit", 0), ("after", "commit", 0), ("before", "ver", 0)]
    assert shared == ["before", ("commit", 0, None, "v0")]
