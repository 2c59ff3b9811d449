"""Whatever the order of reading within the lateness, and wherever a worker restarts: the profile is the same."""

import json
from collections import Counter
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from models.codec import codec_for
from models.events import EVENT_TYPES
from streams.engagement.accumulators import Accumulators
from streams.engagement.kinds import KINDS
from tests.support.fold_input import read_event
from tests.support.fold_profile import ProfileFold
from tests.support.shopper import CUSTOMER, DAY_MS, HOUR_MS, MINUTE_MS, REQUIRED, RULES, T0, Shopper

LATENESS_MS = 20 * HOUR_MS
END_MS = T0 + 400 * DAY_MS
KIND_NAMES = sorted(KINDS)
COMPARED = ("rev", "as_of_ms", "last_seen_ms", "channels", "counters", "score", "contributions", "sessions")


class Planned(NamedTuple):
    """An event and how long after its own time it is read."""

    fields: dict[str, Any]
    delay_ms: int

    @property
    def read_ms(self) -> int:
        return int(self.fields["occurred_at_ms"]) + self.delay_ms


@st.composite
def events(draw: st.DrawFn, steps_ms: list[int]) -> list[dict[str, Any]]:
    """Up to 25 events of one customer, each a step after the one before; some sent twice, some orders named twice."""
    made: list[dict[str, Any]] = []
    at_ms = T0
    for number in range(draw(st.integers(1, 25))):
        at_ms += draw(st.sampled_from(steps_ms))
        kind = draw(st.sampled_from(KIND_NAMES))
        fields = {"type": kind, "event_id": f"e{number}", "customer_id": CUSTOMER, "occurred_at_ms": at_ms}
        fields |= {"email.v1": {"email_id": "e"}, "social.v1": {"network": "n"}}.get(EVENT_TYPES[kind].topic, {})
        fields |= REQUIRED.get(kind, {})
        if kind.startswith("order_"):
            fields |= {"order_id": draw(st.sampled_from("op")), "total_minor": draw(st.sampled_from([None, 10, 20]))}
        if kind in {"email_opened", "email_link_clicked"}:
            fields["machine"] = draw(st.sampled_from([None, True, False]))
        made.append({name: value for name, value in fields.items() if value is not None})
    twice = draw(st.lists(st.sampled_from(made), max_size=5))
    return made + twice


DELAYS = st.sampled_from([0, 1, 10 * MINUTE_MS, 3 * HOUR_MS, LATENESS_MS - 1])
STEPS_MS = [0, 1, 1_000, 5 * MINUTE_MS, 30 * MINUTE_MS, 31 * MINUTE_MS, HOUR_MS, DAY_MS, 8 * DAY_MS, 33 * DAY_MS]


def planned(draw: st.DrawFn, made: list[dict[str, Any]]) -> list[Planned]:
    plan = [Planned(fields, draw(DELAYS)) for fields in draw(st.permutations(made))]
    return sorted(plan, key=lambda event: event.read_ms)


@st.composite
def two_readings(draw: st.DrawFn) -> tuple[list[Planned], list[Planned]]:
    """The same events in two orders, none later than the lateness."""
    made = draw(events(STEPS_MS))
    return planned(draw, made), planned(draw, made)


def struct(fields: dict[str, Any]) -> Any:
    codec = codec_for(EVENT_TYPES[fields["type"]].topic)
    return codec.read(CUSTOMER.encode(), json.dumps(fields).encode(), fields["occurred_at_ms"])


class Reader:
    """A task of one customer: watermarks per topic, timers and sessions released as they pass, facts counted."""

    def __init__(self) -> None:
        self.shopper = Shopper()
        self.watermarks = dict.fromkeys(("clickstream.v1", "cart.v1", "email.v1", "social.v1"), -1)
        self.accumulators = Accumulators()
        self.decided: Counter[str] = Counter()

    def read(self, fields: dict[str, Any]) -> bool:
        topic, event = EVENT_TYPES[fields["type"]].topic, struct(fields)
        profile, decided = self.shopper.profile, self.shopper.decided
        applied = profile.apply(event, self.watermarks[topic], RULES, decided)
        if applied:
            self.accumulators.count_events(f"engagement.{topic}", [(event.type, event.occurred_at_ms // 60_000)])
        self.advance(topic, event.occurred_at_ms - LATENESS_MS)
        return applied

    def advance(self, topic: str, watermark_ms: int) -> None:
        self.watermarks[topic] = max(self.watermarks[topic], watermark_ms)
        profile, decided = self.shopper.profile, self.shopper.decided
        profile.release(self.watermarks["cart.v1"], RULES, decided)
        profile.close_sessions(min(self.watermarks["clickstream.v1"], self.watermarks["cart.v1"]), RULES, decided)
        self.accumulators.add_facts(decided.facts)
        self.decided.update(repr(what) for what in decided.steps_and_outcomes)
        decided.facts.clear()
        decided.steps_and_outcomes.clear()

    def restart(self) -> None:
        self.shopper = self.shopper.restarted()

    def end(self) -> tuple[Any, ...]:
        """Let all silence pass; everything there is to compare."""
        for topic in ("cart.v1", "clickstream.v1"):
            self.advance(topic, END_MS + 40 * DAY_MS)
        counted = {name: value for name, value in self.accumulators.changed().items() if value is not None}
        return self.shopper.packed(), self.shopper.view(), counted, self.decided


@given(two_readings())
def test_order_of_reading_leaves_no_trace(readings: tuple[list[Planned], list[Planned]]) -> None:
    """Permuted within the lateness, duplicates and repeated orders included: equal bytes, decisions and metrics."""
    ends = []
    for reading in readings:
        reader = Reader()
        applied = [reader.read(event.fields) for event in reading]
        ends.append((sum(applied), reader.end()))
    assert ends[0] == ends[1]


@given(two_readings(), st.data())
def test_a_restart_leaves_no_trace(readings: tuple[list[Planned], list[Planned]], data: st.DataObject) -> None:
    """Packed and loaded at any prefix, the profile decides and becomes what it would have without."""
    reading, _ = readings
    restarts = data.draw(st.sets(st.integers(0, len(reading) - 1)))
    straight, interrupted = Reader(), Reader()
    for number, event in enumerate(reading):
        if number in restarts:
            interrupted.restart()
        assert straight.read(event.fields) == interrupted.read(event.fields)
        assert straight.shopper.packed() == interrupted.shopper.packed()
    assert straight.end() == interrupted.end()


@given(two_readings())
def test_the_profile_equals_the_fold_of_its_history(readings: tuple[list[Planned], list[Planned]]) -> None:
    """Counters, channels, score and sessions are those of the contract's definitions, recomputed from all events."""
    reading, _ = readings
    reader, fold = Reader(), ProfileFold(CUSTOMER, {})
    fold.carts = _NoCarts()  # type: ignore[assignment]
    watermarks = dict.fromkeys(reader.watermarks, -1)
    for number, event in enumerate(reading, start=1):
        topic, at_ms = EVENT_TYPES[event.fields["type"]].topic, event.fields["occurred_at_ms"]
        record = _Record(json.dumps(event.fields).encode(), at_ms)
        read = read_event(record, topic.removesuffix(".v1"))
        assert reader.read(event.fields) == fold.apply(read, topic.removesuffix(".v1"), watermarks[topic])
        watermarks[topic] = max(watermarks[topic], at_ms - LATENESS_MS)
        if number % 10 == 0 or number == len(reading):
            expected = fold.view(min(watermarks["clickstream.v1"], watermarks["cart.v1"]))
            found = reader.shopper.view()
            assert {part: found[part] for part in COMPARED} == {part: expected[part] for part in COMPARED}


class _Record(NamedTuple):
    value: bytes
    timestamp: int
    offset: int = 0
    key: bytes = CUSTOMER.encode()
    headers: tuple[Any, ...] = ()


class _NoCarts:
    """Carts are compared elsewhere."""

    waiting = ()

    def read(self, event: Any, wm: int) -> None: ...

    def release(self, wm: int) -> None: ...

    def view(self) -> list[Any]:
        return []
