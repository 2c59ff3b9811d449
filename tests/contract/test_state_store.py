"""What the processor may expect of any StateStore: each claim is tested on MemoryStore and on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.engagement.snapshot import SCHEMA
from streams.errors import DeploymentMismatch, Fenced, NewerSchema
from streams.processing.ports import Commit, StateStore, Stored
from streams.stores import deployment
from streams.stores.memory import MemoryStore
from streams.stores.redis import LOAD_CUSTOMERS_MAX, RedisStore

P = 3
ODD_IDS = ["c-1", "Zoë", "日本", "a b", "a:b", "{a}", "\x00", "h:c-1", "c:c-1", '"', "x" * 300, "\r\n"]


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[StateStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    redis = RedisStore(request.getfixturevalue("redis_url"), request.getfixturevalue("names").app_id)
    yield redis
    await redis.close()


def commit(base: str | None, new: str, **changes: Any) -> Commit:
    return Commit(**{"partition": P, "base": base, "new": new, "meta": new.encode()} | changes)


async def test_state_begins_with_the_first_commit(store: StateStore) -> None:
    """A task without state reads as None and is begun by a commit without base."""
    assert await store.read(P) is None
    assert await store.ver(P) is None
    await store.commit(commit(None, "v1", meta=b"\x00book"))
    assert await store.read(P) == Stored("v1", b"\x00book")
    assert await store.ver(P) == "v1"


async def test_state_begins_once(store: StateStore) -> None:
    """Of two workers that begin the same task the second is fenced."""
    await store.commit(commit(None, "v1", hot={"c-1": b"first"}))
    with pytest.raises(Fenced):
        await store.commit(commit(None, "v2", hot={"c-1": b"second"}))
    assert await store.load(P, ["v1"], ["c-1"]) == {"c-1": (b"first", None)}


async def test_a_commit_needs_its_base(store: StateStore) -> None:
    """A commit whose base is not the stored ver changes nothing."""
    await store.commit(commit(None, "v1", hot={"c-1": b"1"}, accumulators={"m": 1}))
    with pytest.raises(Fenced):
        await store.commit(
            commit("v0", "v2", hot={"c-1": b"2"}, timers={"c-1": 5}, outputs=b"o", accumulators={"m": 2})
        )
    assert await store.claim(P, "v3") == Stored("v1", b"v1", accumulators={"m": 1})
    assert await store.load(P, ["v3"], ["c-1"]) == {"c-1": (b"1", None)}


async def test_a_commit_on_lost_state_is_fenced(store: StateStore) -> None:
    """Where the whole state is gone, a commit that continues it does not begin another."""
    with pytest.raises(Fenced):
        await store.commit(commit("v1", "v2"))
    assert await store.read(P) is None


async def test_a_commit_done_before_is_done(store: StateStore) -> None:
    """The same commit again, as after a lost reply, returns and changes nothing."""
    await store.commit(commit(None, "v1"))
    again = commit("v1", "v2", hot={"c-1": b"2"}, accumulators={"m": 2})
    await store.commit(again)
    await store.commit(again)
    assert await store.ver(P) == "v2"
    assert (await store.accumulators_changed(P, "v1")).fields == {"m": 2}


async def test_a_commit_done_before_leaves_the_trail_as_it_was(store: StateStore) -> None:
    """Asked for a second time, a commit must not make a reader miss what the next one changes."""
    await store.commit(commit(None, "v1"))
    for number in range(2, 5):
        await store.commit(commit(f"v{number - 1}", f"v{number}", accumulators={f"m{number}": 1}))
    await store.commit(commit("v3", "v4", accumulators={"m4": 1}))
    await store.commit(commit("v4", "v5", accumulators={"m5": 1}))
    assert await changed(store, "v4") == ("v5", {"m5": 1}, False)
    assert await changed(store, "v2") == ("v5", {"m3": 1, "m4": 1, "m5": 1}, False)


async def test_a_claim_needs_state(store: StateStore) -> None:
    """A claim finds no state: Fenced, and it leaves none."""
    with pytest.raises(Fenced):
        await store.claim(P, "v1")
    assert await store.read(P) is None


async def test_a_claim_returns_everything_and_fences_the_owner_before(store: StateStore) -> None:
    """A claim returns the state with the ver before it; what the last owner does then is fenced."""
    full: dict[str, Any] = {
        "timers": {"b": 7, "a": 7, "c": 1},
        "sessions": {"s": 9},
        "outputs": b"\x01out",
        "accumulators": {"m": -3},
    }
    await store.commit(commit(None, "v1", **full))
    claimed = await store.claim(P, "v2")
    assert claimed == Stored("v1", b"v1", [("c", 1), ("a", 7), ("b", 7)], [("s", 9)], True, True, b"\x01out", {"m": -3})
    with pytest.raises(Fenced):
        await store.commit(commit("v1", "v1b"))
    with pytest.raises(Fenced):
        await store.load(P, ["v1"], ["c-1"])
    with pytest.raises(Fenced):
        await store.timers(P, ["v1"], 0, 10, 10)
    with pytest.raises(Fenced):
        await store.sessions(P, ["v1"], 0, 10, 10)
    assert await store.ver(P) == "v2"


async def test_a_load_may_meet_the_commit_that_is_on_its_way(store: StateStore) -> None:
    """A load names the ver written last and the one being written, and finds either."""
    await store.commit(commit(None, "v1", hot={"c-1": b"1"}))
    assert await store.load(P, ["v1", "v2"], ["c-1"]) == {"c-1": (b"1", None)}
    await store.commit(commit("v1", "v2", hot={"c-1": b"2"}))
    assert await store.load(P, ["v1", "v2"], ["c-1"]) == {"c-1": (b"2", None)}


async def test_hot_and_cold_are_written_apart(store: StateStore) -> None:
    """Hot and cold change independently; a cold of None is removed; whoever is absent loads as None."""
    await store.commit(commit(None, "v1", hot={"a": b"ha", "b": b"hb"}, cold={"b": b"cb", "c": b"cc", "d": None}))
    await store.commit(commit("v1", "v2", hot={"b": b"hb2"}, cold={"b": None, "c": b""}))
    expected = {"a": (b"ha", None), "b": (b"hb2", None), "c": (None, b""), "d": (None, None)}
    assert await store.load(P, ["v2"], list("abcd")) == expected
    assert await store.load(P, ["v2"], []) == {}


async def test_any_text_is_a_customer_id(store: StateStore) -> None:
    """Ids with colons, braces, spaces, NUL, or that look like fields keep apart."""
    hot = {customer: str(number).encode() for number, customer in enumerate(ODD_IDS)}
    cold = {customer: packed * 2 for customer, packed in hot.items()}
    await store.commit(commit(None, "v1", hot=hot, cold=cold, timers=dict.fromkeys(ODD_IDS, 1)))
    assert await store.load(P, ["v1"], ODD_IDS) == {customer: (hot[customer], cold[customer]) for customer in ODD_IDS}
    assert {customer for customer, _ in await store.timers(P, ["v1"], 0, 1, 99)} == set(ODD_IDS)


async def test_loads_of_any_size(store: StateStore) -> None:
    """More customers than one exchange takes are loaded whole."""
    hot = {f"c-{number}": bytes([number % 251]) * 50 for number in range(LOAD_CUSTOMERS_MAX * 2 + 1)}
    await store.commit(commit(None, "v1", hot=hot))
    loaded = await store.load(P, ["v1"], [*hot, "c-1", "nobody"])
    assert loaded == {customer: (packed, None) for customer, packed in hot.items()} | {"nobody": (None, None)}


@pytest.mark.parametrize("kind", ["timers", "sessions"])
async def test_deadlines_are_paged_in_order(store: StateStore, kind: str) -> None:
    """A page holds the earliest deadlines of an inclusive span; None removes one; a later value replaces it."""
    page = getattr(store, kind)
    await store.commit(commit(None, "v1", **{kind: {"a": 30, "b": 10, "c": 20, "d": 40, "e": 10}}))
    await store.commit(commit("v1", "v2", **{kind: {"d": None, "c": 1_700_000_000_123, "nobody": None}}))
    assert await page(P, ["v2"], 0, 1 << 50, 99) == [("b", 10), ("e", 10), ("a", 30), ("c", 1_700_000_000_123)]
    assert await page(P, ["v2"], 10, 30, 99) == [("b", 10), ("e", 10), ("a", 30)]
    assert await page(P, ["v2"], 11, 29, 99) == []
    assert await page(P, ["v2"], 0, 1 << 50, 2) == [("b", 10), ("e", 10)]


async def test_a_claim_says_when_deadlines_are_cut_off(store: StateStore) -> None:
    """More deadlines than a page: the claim returns the earliest and says so."""
    deadlines = {f"c-{number:05d}": number for number in range(10_001)}
    await store.commit(commit(None, "v1", timers=deadlines, sessions={"s": 1}))
    claimed = await store.claim(P, "v2")
    assert (len(claimed.timers), claimed.timers[-1], claimed.timers_complete) == (10_000, ("c-09999", 9_999), False)
    assert (claimed.sessions, claimed.sessions_complete) == ([("s", 1)], True)


async def test_outputs_are_those_of_the_last_commit(store: StateStore) -> None:
    """A commit replaces the outputs of the one before, also by nothing; a claim keeps them."""
    await store.commit(commit(None, "v1", outputs=b"one"))
    assert (await store.claim(P, "v2")).outputs == b"one"
    assert (await store.claim(P, "v3")).outputs == b"one"
    await store.commit(commit("v3", "v4"))
    assert (await store.claim(P, "v5")).outputs == b""


async def test_accumulators_are_absolute(store: StateStore) -> None:
    """Accumulators are replaced, not added; None removes; 64-bit values survive."""
    await store.commit(commit(None, "v1", accumulators={"a|1": 5, "b": 2**62, "c": -1}))
    await store.commit(commit("v1", "v2", accumulators={"a|1": 3, "c": None}))
    assert await store.accumulators(P) == {"a|1": 3, "b": 2**62}
    assert await store.accumulators(P + 1) == {}


async def test_changed_accumulators_follow_the_chain(store: StateStore) -> None:
    """Since a ver of the chain: what changed after it. Since another, or none: everything."""
    await store.commit(commit(None, "v1", accumulators={"a": 1, "b": 1}, now_ms=1_000))
    await store.commit(commit("v1", "v2", accumulators={"b": 2, "c": 2}, now_ms=2_000))
    await store.commit(commit("v2", "v3", accumulators={"c": None}, now_ms=3_000))
    assert await changed(store, "v1") == ("v3", {"b": 2, "c": None}, False)
    assert await changed(store, "v2") == ("v3", {"c": None}, False)
    assert await changed(store, "v3") == ("v3", {}, False)
    everything = ("v3", {"a": 1, "b": 2}, True)
    assert await changed(store, None) == await changed(store, "stranger") == everything
    await store.claim(P, "v4")
    assert await changed(store, "v3") == ("v4", {"a": 1, "b": 2}, True)
    await store.commit(commit("v4", "v5", accumulators={"a": 9}, now_ms=4_000))
    assert await changed(store, "v4") == ("v5", {"a": 9}, False)


async def test_changes_older_than_a_minute_are_forgotten_together(store: StateStore) -> None:
    """A reader that was away for more than a minute gets everything, never a part."""
    await store.commit(commit(None, "v1", accumulators={"a": 1}, now_ms=0))
    await store.commit(commit("v1", "v2", accumulators={"b": 2}, now_ms=10_000))
    await store.commit(commit("v2", "v3", accumulators={"a": 3}, now_ms=75_000))
    assert await changed(store, "v1") == ("v3", {"a": 3, "b": 2}, True)
    assert await changed(store, "v3") == ("v3", {}, False)
    await store.commit(commit("v3", "v4", accumulators={"b": 4}, now_ms=80_000))
    assert await changed(store, "v3") == ("v4", {"b": 4}, False)


async def test_a_reader_of_the_claim_misses_nothing(store: StateStore) -> None:
    """The claim's own ver is forgotten no later than the first change after it."""
    await store.commit(commit(None, "v0"))
    await store.claim(P, "v1")
    await store.commit(commit("v1", "v2", accumulators={"a": 1}, now_ms=10_000))
    await store.commit(commit("v2", "v3", accumulators={"b": 1}, now_ms=50_000))
    await store.commit(commit("v3", "v4", now_ms=75_000))
    assert await changed(store, "v1") == ("v4", {"a": 1, "b": 1}, True)


async def test_a_change_repeated_is_not_forgotten_with_the_first(store: StateStore) -> None:
    """What changed an hour ago and again a second ago is among the recent changes."""
    await store.commit(commit(None, "v1", accumulators={"a": 1}, now_ms=0))
    await store.commit(commit("v1", "v2", now_ms=20_000))
    await store.commit(commit("v2", "v3", accumulators={"a": 2}, now_ms=50_000))
    await store.commit(commit("v3", "v4", accumulators={"b": 1}, now_ms=75_000))
    await store.commit(commit("v4", "v5", now_ms=76_000))
    assert await changed(store, "v2") == ("v5", {"a": 2, "b": 1}, False)


async def changed(store: StateStore, since: str | None) -> tuple[str | None, dict[str, int | None], bool]:
    answer = await store.accumulators_changed(P, since)
    return answer.ver, answer.fields, answer.whole


async def test_published_is_written_by_the_owner_of_task_0(store: StateStore) -> None:
    """What was published changes field by field, only under a ver of task 0."""
    await store.commit(commit(None, "v1", partition=0))
    await store.write_published(["v1"], {"m|1": b"\x00", "m|2": b"b"})
    await store.write_published(["v0", "v1"], {"m|1": None, "m|3": b"c"})
    await store.write_published(["v1"], {})
    with pytest.raises(Fenced):
        await store.write_published(["v0"], {"m|2": b"z"})
    assert await store.published() == {"m|2": b"b", "m|3": b"c"}
    assert await store.accumulators(0) == {}


async def test_a_deployment_keeps_its_shape(store: StateStore) -> None:
    """Equal settings pass, topics may be added; anything else is a mismatch that names the setting."""
    first = {"partitions": "16", "group": "g", "contract": "1", "topics": "a,b"}
    await store.deployment(first)
    await store.deployment(first)
    await store.deployment(first | {"topics": "a,b,c"})
    with pytest.raises(DeploymentMismatch, match="topics"):
        await store.deployment(first)
    for name in ("partitions", "group", "contract"):
        with pytest.raises(DeploymentMismatch, match=name):
            await store.deployment(first | {"topics": "a,b,c", name: "other"})
    await store.deployment(first | {"topics": "a,b,c"})


async def test_a_deployment_tells_the_schema_to_write(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest known at first; a newer version keeps what is written, an older one does not begin beyond it."""
    wanted = {"partitions": "16"}
    assert await store.deployment(wanted) == SCHEMA == 1
    monkeypatch.setattr(deployment, "SCHEMA", 2)
    assert await store.deployment(wanted | {"topics": "a"}) == 1


async def test_a_deployment_in_a_newer_schema_is_refused(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not read what the others write; nothing is changed by its trying."""
    monkeypatch.setattr(deployment, "SCHEMA", 2)
    assert await store.deployment({"partitions": "16"}) == 2
    monkeypatch.setattr(deployment, "SCHEMA", 1)
    with pytest.raises(NewerSchema, match="upgrade this worker"):
        await store.deployment({"partitions": "16", "topics": "a"})
    monkeypatch.setattr(deployment, "SCHEMA", 3)
    assert await store.deployment({"partitions": "16"}) == 2


def test_nobody_begins_while_the_number_of_tasks_is_changed() -> None:
    """Whatever partitions a worker is told, part of the customers may lie in two places or none."""
    with pytest.raises(DeploymentMismatch, match="repartition --to 6` did not end"):
        deployment.compare({"partitions": "2", deployment.GROWING_FIELD: "6"}, {"partitions": "2"})


async def test_tasks_are_apart(store: StateStore) -> None:
    """Nothing of one task shows in another, also where the number begins alike."""
    await store.commit(commit(None, "v1", partition=1, hot={"c": b"1"}, timers={"c": 1}, accumulators={"m": 1}))
    assert await store.read(11) is None
    await store.commit(commit(None, "w1", partition=11))
    assert await store.load(11, ["w1"], ["c"]) == {"c": (None, None)}
    assert await store.timers(11, ["w1"], 0, 9, 9) == []
    assert await store.claim(1, "v2") == Stored("v1", b"v1", [("c", 1)], accumulators={"m": 1})


async def test_of_concurrent_commits_on_one_base_one_wins(store: StateStore) -> None:
    """Ten commits on the same base: one is done, nine are fenced, and the state is that of the one."""
    await store.commit(commit(None, "v1"))
    rivals = [commit("v1", f"r{number}", hot={"c": str(number).encode()}) for number in range(10)]
    outcomes = await asyncio.gather(*map(store.commit, rivals), return_exceptions=True)
    done = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Fenced] * 9
    assert await store.load(P, [done[0].new], ["c"]) == {"c": (done[0].hot["c"], None)}


async def test_concurrent_claims_leave_one_owner(store: StateStore) -> None:
    """Every claim succeeds, yet only the last may commit."""
    await store.commit(commit(None, "v1"))
    claims = [f"k{number}" for number in range(6)]
    await asyncio.gather(*(store.claim(P, new) for new in claims))
    owner = await store.ver(P)
    for new in claims:
        if new != owner:
            with pytest.raises(Fenced):
                await store.commit(commit(new, f"{new}-next"))
    await store.commit(commit(owner, "next"))


# --- both stores tell the same story

CUSTOMERS = st.sampled_from(["a", "b", "c", "Zoë"])
FIELDS = st.dictionaries(CUSTOMERS, st.binary(max_size=3), max_size=3)
DEADLINES = st.dictionaries(CUSTOMERS, st.none() | st.integers(0, 5), max_size=3)
COMMITS = st.fixed_dictionaries(
    {
        "hot": FIELDS,
        "cold": st.dictionaries(CUSTOMERS, st.none() | st.binary(max_size=3), max_size=3),
        "timers": DEADLINES,
        "sessions": DEADLINES,
        "outputs": st.binary(max_size=2),
        "accumulators": st.dictionaries(st.sampled_from(["m", "n"]), st.none() | st.integers(-9, 9), max_size=2),
        "now_ms": st.integers(0, 200_000),
    }
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["commit", "stale commit", "claim", "again"]), COMMITS), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_memory_and_redis_agree(redis_url: str, names: Any, numbers: Iterator[int], steps: list[Any]) -> None:
    """Any sequence of claims and commits, stale and repeated ones too, leaves both stores with the same answers."""

    async def tell() -> None:
        redis = RedisStore(redis_url, f"{names.app_id}-{next(numbers)}")
        try:
            assert await story(redis, steps) == await story(MemoryStore(), steps)
        finally:
            await redis.close()

    asyncio.run(tell())


async def story(store: StateStore, steps: list[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    """Everything a store says while it is led through the steps."""
    said: list[Any] = []
    seen: dict[str | None, dict[str, int]] = {None: {}}
    owned: list[str | None] = [None]
    last = commit(None, "v0")
    for number, (step, changes) in enumerate(steps):
        new = f"v{number + 1}"
        try:
            if step == "claim":
                said.append(await store.claim(P, new))
            else:
                base = owned[-1] if step == "commit" else owned[0]
                last = last if step == "again" else commit(base, new, **changes)
                await store.commit(last)
            owned.append(await store.ver(P))
        except Fenced:
            said.append("fenced")
        said.append(await tell_all(store, await store.ver(P)))
        await check_changes(store, seen)
    return said


async def tell_all(store: StateStore, ver: str | None) -> list[Any]:
    everything: list[Any] = [await store.read(P), await store.accumulators(P)]
    if ver is not None:
        everything.append(await store.load(P, [ver], ["a", "b", "c", "Zoë"]))
        everything.append(await store.timers(P, [ver], 0, 9, 9))
        everything.append(await store.sessions(P, [ver], 0, 9, 9))
    return everything


async def check_changes(store: StateStore, seen: dict[str | None, dict[str, int]]) -> None:
    """What changed since any ver seen, put onto what held then, is what holds now."""
    now = seen[await store.ver(P)] = await store.accumulators(P)
    for since, before in seen.items():
        answer = await store.accumulators_changed(P, since)
        start = {} if answer.whole else before
        assert {name: value for name, value in (start | answer.fields).items() if value is not None} == now
