"""The plan of what is sent when: stories of many shoppers woven together, disordered and dirty on request.

A plan is a pure function of its script: the same script gives the same records, in order of `send_ms`.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from models.events import EVENT_TYPES
from streams.producer.dirt import dirty_record
from streams.producer.stories import CART_STORIES, STORIES
from streams.producer.visit import CURRENCIES, Act, Visit

EVENTS_A_STORY = 7.0
"""About how many records a story sends, for turning a rate of records into one of stories."""

CALM: Mapping[str, float] = {
    "browse": 30,
    "newsletter": 8,
    "social": 8,
    "audience": 0.5,
    "buy": 8,
    "cancel": 1,
    "abandon": 14,
    "recover": 5,
    "return_unasked": 2,
    "resume": 4,
    "late_touch": 1,
    "late_order": 1,
    "take_over": 1,
    "empty": 2,
    "repeat_order": 1,
    "two_carts": 2,
    "replace": 2,
    "all_at_once": 0.5,
    "log_in": 2,
}
"""How often each story is told in an ordinary shop."""

HARSH: Mapping[str, float] = dict.fromkeys(STORIES, 5.0) | {"browse": 10.0, "audience": 0.5, "late_touch": 10.0}
"""Every rule of carts over and over: for comparing the workers with an independent fold."""

SHOP: Mapping[str, float] = {name: weight for name, weight in CALM.items() if name != "recover"}
"""The ordinary shop, without shoppers who know the ids of triggers in advance: in live play they answer real ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What to play. Times in epoch ms or ms; shares of all records from 0 to 1.

    events: stop after exactly so many records (None: after `duration_ms`, every story told to its end).
    records_per_s: how many are sent; None fits `events` into `duration_ms`. opening: stories told at once.
    """

    seed: int = 1
    shoppers: int = 500
    start_ms: int = 1_760_000_000_000
    duration_ms: int = 86_400_000
    events: int | None = None
    records_per_s: float | None = None
    steps: tuple[tuple[str, int], ...] = (("15m", 900_000), ("1h", 3_600_000), ("24h", 86_400_000))
    lateness_ms: int = 10_000
    stories: Mapping[str, float] = field(default_factory=lambda: CALM)
    opening: tuple[str, ...] = ()
    dirty: float = 0.0
    duplicates: float = 0.0
    out_of_order: float = 0.0

    @property
    def stories_per_s(self) -> float:
        per_s = self.records_per_s or (self.events or 100_000) * 1_000 / self.duration_ms
        return per_s * (1 - self.dirty - self.duplicates) / EVENTS_A_STORY


@dataclass(frozen=True, slots=True)
class Planned:
    """One record to send at `send_ms` to the topic with this suffix; `label`: its purpose, such as late_order.

    fields: those of the event; None for a dirty record, whose `label` is dirty:REASON.
    """

    send_ms: int
    topic: str
    key: bytes | None
    value: bytes | None
    label: str
    fields: Mapping[str, Any] | None


def plan(script: Script) -> Iterator[Planned]:
    """Yield the records of a script in the order in which they are sent."""
    records = _woven(script)
    if script.events is None:
        yield from records
        return
    for _ in range(script.events):
        yield next(records)


def count(planned: Iterable[Planned]) -> Counter[str]:
    """How many records were planned for each purpose, and in all (`records`)."""
    found: Counter[str] = Counter()
    for record in planned:
        found["records"] += 1
        if record.label:
            found[record.label] += 1
    return found


def _woven(script: Script) -> Iterator[Planned]:
    weave = _Weave(script)
    for act_ms, acts in weave.stories():
        yield from weave.until(act_ms)
        for act in acts:
            weave.put(act)
    yield from weave.until(None)


class _Weave:
    """The stories under way: a heap of what is still to be sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rng = Random(script.seed)
        self.heap: list[tuple[int, int, Act]] = []
        self.number = 0
        self.dirty = 0
        self.busy_until_ms: dict[str, int] = {}

    def stories(self) -> Iterator[tuple[int, list[Act]]]:
        """Yield (start, acts) of one story after another; without an end where the number of records is the end."""
        script = self.script
        for name in script.opening:
            yield script.start_ms, self._tell(name, script.start_ms)
        names, weights = list(script.stories), list(script.stories.values())
        now_ms = float(script.start_ms)
        while script.events is not None or now_ms < script.start_ms + script.duration_ms:
            now_ms += self.rng.expovariate(script.stories_per_s) * 1_000
            yield int(now_ms), self._tell(self.rng.choices(names, weights)[0], int(now_ms))

    def _tell(self, name: str, start_ms: int) -> list[Act]:
        story = STORIES[name]
        shopper = self._shopper(start_ms, alone=story in CART_STORIES)
        visit = Visit(
            rng=self.rng,
            customer_id=shopper,
            at_ms=start_ms,
            steps=self.script.steps,
            lateness_ms=self.script.lateness_ms,
            pace=min(1.0, self.script.steps[0][1] / 150_000),
            source=self.rng.choice(("web", "web", "app", "ad")),
        )
        visit.currency = CURRENCIES[sum(shopper.encode()) % len(CURRENCIES)]
        visit.cart_id = None if self.rng.random() < 0.3 else f"a-{self.rng.getrandbits(32):08x}"
        story(visit)
        if story in CART_STORIES:
            self.busy_until_ms[shopper] = visit.at_ms + 60_001
        return visit.acts

    def _shopper(self, now_ms: int, *, alone: bool) -> str:
        for _ in range(20):
            shopper = _name(self.rng.randrange(self.script.shoppers))
            if not alone or self.busy_until_ms.get(shopper, 0) <= now_ms:
                return shopper
        return shopper

    def put(self, act: Act) -> None:
        """Take an act in, and perhaps a duplicate of it, at the time at which it is sent."""
        delay_ms = self.rng.randrange(50)
        if act.late_ms:
            delay_ms += act.late_ms
        elif self.rng.random() < self.script.out_of_order:
            delay_ms += self.rng.randrange(max(1, self.script.lateness_ms * 9 // 10))
            act.label = act.label or "out_of_order"
        self._push(act.at_ms + delay_ms, act)
        if self.rng.random() < self.script.duplicates / (1 - self.script.dirty - self.script.duplicates):
            wait_ms = self.rng.choice((1, 500, 5_000, 60_000, 600_000))
            self._push(act.at_ms + delay_ms + self.rng.randrange(wait_ms), Act(act.at_ms, act.fields, "duplicate"))

    def _push(self, send_ms: int, act: Act) -> None:
        self.number += 1
        heapq.heappush(self.heap, (send_ms, self.number, act))

    def until(self, limit_ms: int | None) -> Iterator[Planned]:
        """Yield what is sent up to a time, and after some of it a dirty record."""
        while self.heap and (limit_ms is None or self.heap[0][0] <= limit_ms):
            send_ms, _, act = heapq.heappop(self.heap)
            topic = EVENT_TYPES[act.fields["type"]].topic
            key = act.fields["customer_id"].encode()
            yield Planned(send_ms, topic, key, msgspec.json.encode(act.fields), act.label, act.fields)
            if self.rng.random() < self.script.dirty / (1 - self.script.dirty):
                yield self._dirt(send_ms, act.fields["customer_id"])

    def _dirt(self, send_ms: int, customer_id: str) -> Planned:
        good = {"type": "product_added", "customer_id": customer_id, "product_id": "p-1", "quantity": 1}
        reason, (topic, key, value) = dirty_record(self.dirty, self.rng, good, send_ms)
        self.dirty += 1
        return Planned(send_ms, topic, key, value, f"dirty:{reason}", None)


def _name(number: int) -> str:
    """Customer ids: plain ones, and a few that keys, hashes and logs have to be careful with."""
    odd = {7: "c|ł", 23: "客 23", 41: 'c"41\\', 59: "c-59\n", 83: "🛒-83"}
    return odd.get(number, f"c-{number}")
