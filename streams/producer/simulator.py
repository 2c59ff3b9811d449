"""Playing a plan: as fast as possible with timestamps of its own, or in real time with shoppers who answer triggers."""

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import msgspec

from models.events import EVENT_TYPES
from models.topics import topic_name
from streams.producer.client import EngagementProducer
from streams.producer.ledger import Ledger, entry_of
from streams.producer.plan import Planned

Progress = Callable[[int], None]
TICK_S = 0.05


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Sender:
    """Sends planned records through the SDK and writes what Kafka acknowledges into the ledger."""

    producer: EngagementProducer
    ledger: Ledger
    timestamps: bool = False
    """Give records the time at which the plan sends them, for topics with CreateTime."""

    def send(self, record: Planned) -> None:
        """Send a clean event by the checked way, a dirty record or the bytes of a duplicate by the raw one."""
        topic = topic_name(self.producer.topic_prefix, record.topic)
        timestamp_ms = record.send_ms if self.timestamps else None

        def acknowledged(*placed: int) -> None:
            self.ledger.write(entry_of(topic, record.label, record.fields, (placed[0], placed[1], placed[2])))

        if record.fields is not None:
            self.producer.send(record.fields, timestamp_ms=timestamp_ms, acknowledged=acknowledged)
        else:
            self.producer.send_raw(
                topic, record.key, record.value, timestamp_ms=timestamp_ms, acknowledged=acknowledged
            )


def play_history(records: Iterable[Planned], sender: Sender, progress: Progress | None = None) -> int:
    """Send all records as fast as Kafka takes them; return how many."""
    sent = 0
    for sent, record in enumerate(records, start=1):
        sender.send(record)
        if progress is not None and sent % 1_000 == 0:
            progress(sent)
    return sent


@dataclass(slots=True)
class Replies:
    """Shoppers who answer triggers: the brand mails them at once, they open, most click, and many order."""

    seed: int
    clicking: float = 0.7
    ordering: float = 0.6
    _rng: Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)

    def to(self, trigger: Mapping[str, Any], now_ms: int) -> list[Planned]:
        """What follows a trigger of action send, from now on."""
        rng = self._rng
        mail = {
            "email_id": f"m-{trigger['trigger_id'][:12]}",
            "campaign_id": f"cart-{trigger['step']}",
            "trigger_id": trigger["trigger_id"],
        }
        follow: list[tuple[int, str, dict[str, Any]]] = [(0, "email_sent", mail), (150, "email_delivered", mail)]
        opened_ms = 150 + rng.randrange(500, 2_500)
        clicked_ms = opened_ms + rng.randrange(500, 2_500)
        if rng.random() < self.clicking:
            follow += [(opened_ms, "email_opened", mail), (clicked_ms, "email_link_clicked", mail)]
            if rng.random() < self.ordering:
                order = {
                    "order_id": f"o-{trigger['trigger_id'][:12]}",
                    "cart_id": trigger["cart_id"],
                    "total_minor": trigger["total_minor"],
                    "currency": trigger["currency"],
                }
                follow.append((clicked_ms + rng.randrange(500, 3_000), "order_completed", order))
        return [self._planned(trigger["customer_id"], kind, now_ms + wait_ms, more) for wait_ms, kind, more in follow]

    def _planned(self, customer_id: str, type: str, at_ms: int, more: dict[str, Any]) -> Planned:  # noqa: A002
        fields = {
            "event_id": f"{self._rng.getrandbits(96):024x}",
            "type": type,
            "customer_id": customer_id,
            "occurred_at_ms": at_ms,
        } | {name: value for name, value in more.items() if value is not None}
        label = "answered_trigger" if type in {"email_link_clicked", "order_completed"} else ""
        key, value = customer_id.encode(), msgspec.json.encode(fields)
        return Planned(at_ms, EVENT_TYPES[type].topic, key, value, label, fields)


class LiveSimulator:
    """Plays a plan in real time until it is stopped or at its end; `answer` feeds triggers to the shoppers."""

    def __init__(self, records: Iterable[Planned], sender: Sender, *, replies: Replies | None = None) -> None:
        self._records = iter(records)
        self._sender = sender
        self._replies = replies
        self._numbers = count()
        self._answers: list[tuple[int, int, Planned]] = []
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def answer(self, trigger: Mapping[str, Any]) -> None:
        """Let a shopper answer a trigger; may be called from any thread."""
        if self._replies is None or trigger.get("action") != "send":
            return
        with self._lock:
            for record in self._replies.to(trigger, _now_ms()):
                heapq.heappush(self._answers, (record.send_ms, next(self._numbers), record))

    def stop(self) -> None:
        self.stopping.set()

    def run(self) -> None:
        """Send each record at its time; returns once stopped. Raises what the SDK raises."""
        ahead = next(self._records, None)
        while not self.stopping.is_set() and (ahead is not None or self._answers):
            now_ms = _now_ms()
            while ahead is not None and ahead.send_ms <= now_ms:
                self._sender.send(ahead)
                ahead = next(self._records, None)
            for record in self._due_answers(now_ms):
                self._sender.send(record)
            self.stopping.wait(TICK_S)

    def _due_answers(self, now_ms: int) -> list[Planned]:
        with self._lock:
            due = []
            while self._answers and self._answers[0][0] <= now_ms:
                due.append(heapq.heappop(self._answers)[2])
            return due
