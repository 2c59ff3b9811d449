"""The simulator's own log of what Kafka acknowledged, and what it says about a trigger."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

ALWAYS_TOUCHES = (
    "product_added",
    "product_removed",
    "checkout_started",
    "checkout_step_completed",
    "payment_info_entered",
)


class Entry(msgspec.Struct, omit_defaults=True, frozen=True):
    """One acknowledged record. Times in epoch ms; appended_ms: when Kafka says it was written.

    items: how many lines a cart_updated names (None: it names none). label: as in the plan; dirty records have no type.
    """

    topic: str
    partition: int
    offset: int
    appended_ms: int
    label: str = ""
    type: str = ""
    event_id: str = ""
    customer_id: str = ""
    occurred_at_ms: int = 0
    cart_id: str | None = None
    order_id: str | None = None
    items: int | None = None

    def touches(self) -> bool:
        return self.type in ALWAYS_TOUCHES or (self.type == "cart_updated" and self.items != 0)

    def empties(self) -> bool:
        return self.type == "cart_cleared" or (self.type == "cart_updated" and self.items == 0)


def entry_of(topic: str, label: str, fields: Mapping[str, Any] | None, placed: tuple[int, int, int]) -> Entry:
    """The entry of a record that was acknowledged at (partition, offset, timestamp in ms)."""
    partition, offset, appended_ms = placed
    if fields is None:
        return Entry(topic, partition, offset, appended_ms, label)
    return Entry(
        topic,
        partition,
        offset,
        appended_ms,
        label,
        type=fields["type"],
        event_id=fields["event_id"],
        customer_id=fields["customer_id"],
        occurred_at_ms=fields["occurred_at_ms"],
        cart_id=fields.get("cart_id"),
        order_id=fields.get("order_id"),
        items=None if fields.get("items") is None else len(fields["items"]),
    )


@dataclass(slots=True)
class Ledger:
    """Entries as they are acknowledged, written to a file of JSON lines where one is given; thread-safe.

    Only cart events are kept in memory, by customer: that is what `contradictions` asks for.
    """

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    records: int = 0
    _carts: dict[str, list[Entry]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _file: IO[bytes] | None = None

    def write(self, entry: Entry) -> None:
        with self._lock:
            self.records += 1
            self.counts[entry.label.partition(":")[0] or "plain"] += 1
            if entry.topic.endswith("cart.v1") and entry.type:
                self._carts.setdefault(entry.customer_id, []).append(entry)
            if self.path is not None:
                if self._file is None:
                    self._file = self.path.open("wb")
                self._file.write(msgspec.json.encode(entry) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    def contradictions(self, trigger: Mapping[str, Any], lateness_ms: int) -> list[str]:
        """Why a trigger of action send should not have been sent; [] where the log agrees with it.

        The cart must have been touched at last_touch_ms; and nothing that Kafka had by due_ms + lateness, so in time,
        may have touched, ordered, emptied or merged it up to due_ms. Orders reported twice prove nothing.
        """
        with self._lock:
            entries = list(self._carts.get(trigger["customer_id"], ()))
        last_ms, due_ms = trigger["last_touch_ms"], trigger["due_ms"]
        own = [entry for entry in entries if entry.cart_id == trigger["cart_id"]]
        found = []
        if not any(entry.touches() and entry.occurred_at_ms == last_ms for entry in own):
            found.append("no touch of the cart at last_touch_ms")
        in_time = [entry for entry in entries if entry.appended_ms <= due_ms + lateness_ms]
        reported = Counter(order_id for _, order_id in {(entry.event_id, entry.order_id) for entry in entries})
        for entry in in_time:
            after = last_ms < entry.occurred_at_ms <= due_ms
            at_or_after = last_ms <= entry.occurred_at_ms <= due_ms
            same = entry.cart_id == trigger["cart_id"]
            if entry.type == "order_completed" and at_or_after and reported[entry.order_id] == 1:
                found.append("the customer had ordered")
            elif entry.type == "identity_linked" and after:
                found.append("the customer had logged in under another id")
            elif entry.touches() and same and after:
                found.append("the cart had been touched again")
            elif entry.empties() and same and at_or_after:
                found.append("the cart had been emptied")
        return found


def read_ledger(path: Path) -> Ledger:
    """The ledger that was written to a file."""
    ledger = Ledger()
    with path.open("rb") as lines:
        for line in lines:
            ledger.write(msgspec.json.decode(line, type=Entry))
    return ledger
