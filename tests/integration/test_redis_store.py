"""RedisStore against a Redis that dies, forgets, stalls, is full, or is not what it should be."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from streams.errors import Fenced, InvalidSettings, StoreUnavailable, UnsafeStore
from streams.processing.ports import Commit, Stored
from streams.stack import ports, tools
from streams.stack.redis_server import RedisServer
from streams.stores.keys import TaskKeys
from streams.stores.redis import RedisStore
from tests.support.brokers import TOOLS
from tests.support.proxy import Proxy

pytestmark = pytest.mark.integration
P, EXEC = 2, b"$4\r\nEXEC"


def server_in(folder: Path, *options: str) -> RedisServer:
    return RedisServer(folder, program=tools.find_redis(TOOLS), port=ports.pick(), options=options)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test alone, synced at every write, so that what was answered survives kill -9."""
    running = server_in(tmp_path / "redis", "--appendfsync", "always")
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(redis_url) as running:
        yield running


@pytest.fixture
async def store(redis_url: str, names: Any) -> AsyncIterator[RedisStore]:
    """A worker with a sound connection."""
    sound = RedisStore(redis_url, names.app_id)
    yield sound
    await sound.close()


@pytest.fixture
async def shaky(proxy: Proxy, names: Any) -> AsyncIterator[RedisStore]:
    """Another worker on the same state, behind the proxy."""
    behind = RedisStore(proxy.url, names.app_id, timeout_ms=300, retry_ms=400)
    yield behind
    await behind.close()


def commit(base: str | None, new: str, **changes: Any) -> Commit:
    return Commit(**{"partition": P, "base": base, "new": new, "meta": new.encode()} | changes)


# --- unknown outcomes


@pytest.mark.parametrize("where", ["before", "reply", "held"])
async def test_a_broken_commit_is_done_once(proxy: Proxy, shaky: RedisStore, store: RedisStore, where: Any) -> None:
    """A connection that breaks around EXEC: the commit returns, done once; a late copy of it does nothing."""
    await shaky.commit(commit(None, "v1", hot={"c": b"1"}))
    proxy.break_at(EXEC, where)
    await shaky.commit(commit("v1", "v2", hot={"c": b"2"}, outputs=b"o2"))
    assert proxy.broken == 1
    await shaky.commit(commit("v2", "v3", hot={"c": b"3"}, outputs=b"o3"))
    await proxy.release()
    assert await store.load(P, ["v3"], ["c"]) == {"c": (b"3", None)}
    assert (await store.claim(P, "v4")).outputs == b"o3"


@pytest.mark.parametrize("where", ["before", "reply", "held"])
async def test_a_broken_commit_is_fenced_by_a_claim(
    proxy: Proxy, shaky: RedisStore, store: RedisStore, where: Any
) -> None:
    """Another worker claims while the outcome is unknown: the commit is fenced, a late copy of it does nothing."""
    await shaky.commit(commit(None, "v1", hot={"c": b"1"}))
    proxy.break_at(EXEC, where, then=lambda: store.claim(P, "other"))
    with pytest.raises(Fenced):
        await shaky.commit(commit("v1", "v2", hot={"c": b"2"}))
    await proxy.release()
    done = where == "reply"
    assert await store.load(P, ["other"], ["c"]) == {"c": (b"2" if done else b"1", None)}
    await store.commit(commit("other", "v3"))


@pytest.mark.parametrize("where", ["before", "reply", "held"])
async def test_a_broken_claim_returns_the_ver_before_it(
    proxy: Proxy, shaky: RedisStore, store: RedisStore, where: Any
) -> None:
    """A claim whose reply is lost is done, and still tells which commit it found."""
    await store.commit(commit(None, "v1", timers={"c": 7}))
    proxy.break_at(EXEC, where)
    assert await shaky.claim(P, "v2") == Stored("v1", b"v1", [("c", 7)])
    await proxy.release()
    await shaky.commit(commit("v2", "v3"))
    assert await store.ver(P) == "v3"


async def test_a_broken_first_start_is_done_once(proxy: Proxy, shaky: RedisStore) -> None:
    """The first commit of a task, its reply lost, does not fence itself."""
    proxy.break_at(EXEC, "reply")
    await shaky.commit(commit(None, "v1", hot={"c": b"1"}))
    assert await shaky.load(P, ["v1"], ["c"]) == {"c": (b"1", None)}


async def test_a_broken_load_is_repeated(proxy: Proxy, shaky: RedisStore) -> None:
    """Reading is repeated on a fresh connection."""
    await shaky.commit(commit(None, "v1", hot={"c": b"1"}))
    before = proxy.accepted
    proxy.break_at(b"HMGET", "reply")
    assert await shaky.load(P, ["v1"], ["c"]) == {"c": (b"1", None)}
    assert proxy.accepted == before + 1


async def test_a_stalled_redis_is_unavailable_in_bounded_time(proxy: Proxy, shaky: RedisStore) -> None:
    """A Redis that answers nothing raises StoreUnavailable; the same commit goes through when it is back."""
    await shaky.commit(commit(None, "v1"))
    proxy.stall()
    started = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await shaky.commit(commit("v1", "v2"))
    with pytest.raises(StoreUnavailable):
        await shaky.ver(P)
    assert asyncio.get_running_loop().time() - started < 3
    proxy.flow()
    await shaky.commit(commit("v1", "v2"))
    assert await shaky.ver(P) == "v2"


async def test_a_cancelled_commit_leaves_no_reply_behind(proxy: Proxy, shaky: RedisStore) -> None:
    """A commit cancelled while it waits does not leave its reply to the next call."""
    await shaky.commit(commit(None, "v1", hot={"c": b"1"}))
    proxy.stall()
    waiting = asyncio.create_task(shaky.commit(commit("v1", "v2", hot={"c": b"2"})))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    proxy.flow()
    ver = await shaky.ver(P)
    assert ver == "v1"
    assert await shaky.load(P, ["v1"], ["c"]) == {"c": (b"1", None)}


async def test_connections_are_bounded(proxy: Proxy, names: Any) -> None:
    """Fifty loads at once share the few connections a store may open."""
    few = RedisStore(proxy.url, names.app_id, connections_max=3)
    await few.commit(commit(None, "v1", hot={"c": b"1"}))
    answers = await asyncio.gather(*(few.load(P, ["v1"], ["c"]) for _ in range(50)))
    await few.close()
    assert answers == [{"c": (b"1", None)}] * 50
    assert proxy.accepted <= 3


# --- a Redis that dies or forgets


async def test_kill_9_under_commits_tears_nothing(server: RedisServer, names: Any) -> None:
    """Redis is killed and restarted six times under commits: each that returned is kept whole, the chain goes on."""
    store = RedisStore(server.url, names.app_id, timeout_ms=1_000, retry_ms=20_000)
    await store.commit(numbered(None, 0))
    done = 0

    async def work() -> None:
        nonlocal done
        while True:
            await store.commit(numbered(f"n{done}", done + 1))
            done += 1

    worker = asyncio.create_task(work())
    for _ in range(6):
        reached = done
        while done < reached + 20:
            await asyncio.sleep(0.01)
            assert not worker.done(), worker.exception()
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.02)
        await asyncio.to_thread(server.start)
    worker.cancel()
    await asyncio.wait([worker])
    stored = await consistent_number(store)
    assert stored in (done, done + 1)
    await store.close()


async def test_a_redis_that_forgot_fences_its_live_worker(server: RedisServer, names: Any) -> None:
    """Redis comes back with its append-only file cut: the state is an earlier commit's, the live worker is fenced."""
    dice = random.Random(7)
    store = RedisStore(server.url, names.app_id, retry_ms=20_000)
    await store.commit(numbered(None, 0))
    last = 0
    for _ in range(5):
        for _ in range(12):
            await store.commit(numbered(f"n{last}", last + 1))
            last += 1
        await asyncio.to_thread(server.kill)
        forget(server.folder, dice)
        await asyncio.to_thread(server.start)
        back = await consistent_number(store)
        assert back < last
        for stale in (store.commit(numbered(f"n{last}", last + 1)), store.load(P, [f"n{last}"], ["c-1"])):
            with pytest.raises(Fenced):
                await stale
        claimed = await store.claim(P, f"n{last + 1000}")
        assert claimed.ver == f"n{back}"
        last += 1000
        await store.commit(numbered(f"n{last}", last + 1))
        last += 1
    await store.close()


def numbered(base: str | None, number: int) -> Commit:
    """A commit whose every part tells its number; each customer's bucket is another."""
    packed = str(number).encode()
    customers = [f"c-{customer}" for customer in range(40)]
    return commit(
        base,
        f"n{number}",
        meta=packed,
        hot=dict.fromkeys(customers, packed),
        cold=dict.fromkeys(customers, packed),
        timers=dict.fromkeys(customers, number),
        sessions={f"s-{number % 7}": number, f"s-{(number + 1) % 7}": None},
        outputs=packed,
        accumulators={"m": number},
        now_ms=number,
    )


async def consistent_number(store: RedisStore) -> int:
    """The number that every part of the state tells."""
    stored = await store.read(P)
    assert stored is not None
    number, packed = int(stored.meta), stored.meta
    customers = [f"c-{customer}" for customer in range(40)]
    assert stored.ver == f"n{number}"
    assert await store.load(P, [stored.ver], customers) == dict.fromkeys(customers, (packed, packed))
    assert await store.timers(P, [stored.ver], 0, 1 << 40, 99) == sorted((customer, number) for customer in customers)
    assert (await store.sessions(P, [stored.ver], number, number, 9)) == [(f"s-{number % 7}", number)]
    assert await store.accumulators(P) == {"m": number}
    return number


def forget(folder: Path, dice: random.Random) -> None:
    """Cut the newest append-only file somewhere in its latter half, most likely in the middle of a commit."""
    newest = max(folder.rglob("*.aof"), key=lambda path: (path.stat().st_size, path.name))
    with newest.open("r+b") as file:
        file.truncate(int(newest.stat().st_size * dice.uniform(0.5, 0.9)))


async def test_a_flushed_redis_fences_and_does_not_begin_again(server: RedisServer, names: Any) -> None:
    """After FLUSHALL a live worker is fenced in every call and writes nothing."""
    store = RedisStore(server.url, names.app_id)
    await store.commit(commit(None, "v1", hot={"c": b"1"}))
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        for stale in (store.commit(commit("v1", "v2")), store.load(P, ["v1"], ["c"]), store.claim(P, "v3")):
            with pytest.raises(Fenced):
                await stale
        assert client.dbsize() == 0
    await store.close()


async def test_a_first_start_folds_onto_nothing(redis_url: str, store: RedisStore, names: Any) -> None:
    """State whose book is gone is cleared by the commit that begins it anew."""
    full: dict[str, Any] = {"hot": {"c": b"1"}, "timers": {"c": 1}, "sessions": {"c": 1}, "accumulators": {"m": 1}}
    await store.commit(commit(None, "v1", **full))
    with redis.Redis.from_url(redis_url) as client:
        client.delete(TaskKeys(names.app_id, P).main)
    await store.commit(commit(None, "w1", hot={"d": b"2"}))
    assert await store.claim(P, "w2") == Stored("w1", b"w1")
    assert await store.load(P, ["w2"], ["c", "d"]) == {"c": (None, None), "d": (b"2", None)}


async def test_state_is_kept_for_ever_in_one_slot(redis_url: str, store: RedisStore, names: Any) -> None:
    """Every key of a task carries its hash tag and none expires."""
    await store.deployment({"partitions": "4"})
    await store.commit(numbered(None, 1))
    await store.claim(P, "v")
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        found = list(client.scan_iter(f"{{{names.app_id}*"))
        assert all(client.ttl(key) == -1 for key in found)
    tag = f"{{{names.app_id}:{P}}}:"
    assert {key for key in found if not key.startswith(tag)} == {f"{{{names.app_id}}}:deployment"}
    assert {key.removeprefix(tag) for key in found if ":s:" not in key} >= {"m", "t", "e", "o", "a", "ad"}


# --- a Redis that is not what it should be


async def test_an_evicting_redis_is_unsafe(server: RedisServer, names: Any) -> None:
    """A policy that may drop state is refused with the cure; the right one passes."""
    store = RedisStore(server.url, names.app_id)
    await store.check()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UnsafeStore, match="maxmemory-policy noeviction"):
            await store.check()
    await store.close()


async def test_a_replica_is_unsafe(server: RedisServer, names: Any) -> None:
    """A replica is refused at the start; writes to it are StoreUnavailable, as in the midst of a failover."""
    store = RedisStore(server.url, names.app_id, retry_ms=200)
    await store.commit(commit(None, "v1"))
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(UnsafeStore, match="replica"):
            await store.check()
        with pytest.raises(StoreUnavailable):
            await store.commit(commit("v1", "v2"))
        client.replicaof("NO", "ONE")
    await store.commit(commit("v1", "v2"))
    await store.close()


async def test_a_full_redis_refuses_whole_commits(server: RedisServer, names: Any) -> None:
    """Out of memory: StoreUnavailable, nothing of the commit is done, and it passes when there is room."""
    store = RedisStore(server.url, names.app_id, retry_ms=200)
    await store.commit(commit(None, "v1", hot={"c": b"1"}))
    big = commit("v1", "v2", hot={"c": b"2"} | {f"c-{number}": b"x" * 1_000 for number in range(500)})
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            await store.commit(big)
        client.config_set("maxmemory", "0")
        assert await store.load(P, ["v1"], ["c", "c-1"]) == {"c": (b"1", None), "c-1": (None, None)}
    await store.commit(big)
    assert await store.ver(P) == "v2"
    await store.close()


async def test_a_key_of_another_kind_stops_the_worker(redis_url: str, store: RedisStore, names: Any) -> None:
    """A key that somebody else wrote fails inside EXEC: UnsafeStore, a person has to look."""
    await store.commit(commit(None, "v1"))
    with redis.Redis.from_url(redis_url) as client:
        client.set(TaskKeys(names.app_id, P).timers, "somebody else's")
    with pytest.raises(UnsafeStore, match="WRONGTYPE"):
        await store.commit(commit("v1", "v2", timers={"c": 1}))


async def test_secrets_stay_out_of_errors(tmp_path: Path, names: Any) -> None:
    """A password with odd characters works; a wrong or misplaced one is never quoted."""
    server = server_in(tmp_path / "redis", "--requirepass", "p@ss/w:rd")
    # Its own readiness check has no password.
    server.launch()
    place = server.url.removeprefix("redis://")
    right, wrong = f"redis://:p%40ss%2Fw%3Ard@{place}", f"redis://:sesame@{place}"
    store = RedisStore(right, names.app_id)
    await store.commit(commit(None, "v1"))
    await store.close()
    refused = RedisStore(wrong, names.app_id, retry_ms=100)
    with pytest.raises(StoreUnavailable) as unavailable:
        await refused.ver(P)
    await refused.close()
    server.stop()
    with pytest.raises(InvalidSettings) as invalid:
        RedisStore("redis://:sesame@127.0.0.1:sesame/0", names.app_id)
    for caught in (unavailable, invalid):
        assert "sesame" not in str(caught.value)
    assert "Authentication" in str(unavailable.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:6379", "", "redis://127.0.0.1:99x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """A malformed URL is refused where the store is made, before anything connects."""
    with pytest.raises(InvalidSettings):
        RedisStore(url, "shop")
