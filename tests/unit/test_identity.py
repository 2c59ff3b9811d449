"""Event ids: who is known, who is forgotten, and that order leaves no trace."""

import random

import pytest
import xxhash

from streams.engagement import identity
from streams.engagement.identity import EVENT_IDS_MAX, EventMemory

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW = 1_760_054_400_000


def test_an_id_is_admitted_once() -> None:
    """The second event with an id is a duplicate, also where its time differs, also after packing."""
    memory = EventMemory()
    assert memory.admit("a", NOW)
    assert not memory.admit("a", NOW)
    assert not memory.admit("a", NOW + 5)
    assert not EventMemory.unpack(memory.pack()).admit("a", NOW)
    assert memory.admit("b", NOW)


def test_an_id_is_known_for_a_day() -> None:
    """Exactly 24 h before the newest is kept; a millisecond more is not, and is admitted unchecked ever after."""
    memory = EventMemory()
    assert memory.admit("a", NOW)
    assert memory.admit("newest", NOW + DAY_MS)
    assert not memory.admit("a", NOW)
    assert memory.admit("newer", NOW + DAY_MS + 1)
    assert memory.admit("a", NOW)
    assert memory.admit("a", NOW)


def test_an_id_that_comes_back_after_a_day_is_new() -> None:
    """Beside the returning event the older one is out of reach, whichever is read first."""
    for times in ((NOW, NOW + DAY_MS + 1), (NOW + DAY_MS + 1, NOW)):
        memory = EventMemory()
        assert [memory.admit("a", time_ms) for time_ms in times] == [True, True]
        assert memory.pack() == EventMemory.unpack(memory.pack()).pack()


def test_what_is_too_old_beside_the_newest_is_not_packed() -> None:
    """Nor where it was read first and nothing had to be looked for since: equal memories have equal bytes."""
    packed = []
    for times in ((NOW, NOW + DAY_MS + 1), (NOW + DAY_MS + 1, NOW)):
        memory = EventMemory()
        for time_ms in times:
            assert memory.admit(f"e{time_ms}", time_ms)
        packed.append(memory.pack())
    assert packed[0] == packed[1]


def test_the_128_newest_are_known() -> None:
    """One more pushes the oldest out, in order of time; what is older than all of a full memory is not checked."""
    memory = EventMemory()
    for number in range(EVENT_IDS_MAX + 1):
        assert memory.admit(f"e{number}", NOW + number)
    assert not memory.admit("e1", NOW + 1)
    assert memory.admit("e0", NOW)
    assert memory.admit("late", NOW - 1)
    assert memory.admit("late", NOW - 1)
    assert memory.admit("between", NOW + 1)
    assert memory.admit("e1", NOW + 1)


@pytest.mark.parametrize("start_ms", [0, 1 << 31, (1 << 40) + 17, NOW])
def test_order_leaves_no_trace(start_ms: int) -> None:
    """However 300 ids are shuffled, the packed memory is that of the 128 newest by (time, hash) within a day."""
    rnd = random.Random(start_ms)
    ids = [(start_ms + rnd.randrange(30 * HOUR_MS), f"id-{number}") for number in range(300)]
    newest = max(ids)[0]
    kept = sorted((time_ms, xxhash.xxh3_64_digest(name.encode())) for time_ms, name in ids)[-EVENT_IDS_MAX:]
    kept = [entry for entry in kept if entry[0] >= newest - DAY_MS]
    for _ in range(5):
        rnd.shuffle(ids)
        memory = EventMemory()
        for time_ms, name in ids:
            assert memory.admit(name, time_ms)
        memory = EventMemory.unpack(memory.pack())
        found = [memory.records[at : at + 12] for at in range(0, len(memory.records), 12)]
        assert [(memory.base_ms + int.from_bytes(entry[:4], "big"), entry[4:]) for entry in found] == kept


def test_memory_survives_months_and_changes_of_its_time_base() -> None:
    """Ids hours apart stay known across a change of base; after months of silence the old ones are gone."""
    edge = (NOW >> 31) + 1 << 31
    memory = EventMemory()
    assert memory.admit("a", edge - HOUR_MS)
    assert memory.admit("b", edge + HOUR_MS)
    assert not memory.admit("a", edge - HOUR_MS)
    assert memory.admit("c", edge + 100 * DAY_MS)
    assert memory.admit("a", edge - HOUR_MS)
    packed = memory.pack()
    assert packed is not None
    assert len(packed[1]) == 12  # type: ignore[arg-type]


def test_an_id_of_before_the_time_base_of_the_first_is_known() -> None:
    """The memory of a customer who begins just behind an edge reaches back a day all the same."""
    edge = (NOW >> 31) + 1 << 31
    memory = EventMemory()
    assert memory.admit("newest", edge + HOUR_MS)
    assert memory.admit("a", edge - HOUR_MS)
    assert not memory.admit("a", edge - HOUR_MS)


def test_a_hash_found_across_two_records_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a hash at its own place counts as known: bytes of two neighbours may look like one."""
    digests = {"a": b"\x11" * 8, "b": b"\x22" * 8}
    memory = EventMemory()
    monkeypatch.setattr(identity, "xxh3_64_digest", lambda value: digests[value.decode()])
    assert memory.admit("a", NOW)
    assert memory.admit("b", NOW + 1)
    digests["c"] = memory.records[8:16]
    assert memory.admit("c", NOW + 2)
    assert not memory.admit("c", NOW + 2)


def test_nothing_remembered_packs_to_nothing() -> None:
    """An unused memory takes no bytes but a null."""
    assert EventMemory().pack() is None
    assert EventMemory.unpack(None).pack() is None
