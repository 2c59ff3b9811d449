"""The single customer view: everything Pulseline knows of one customer, changed in place by one event after the other.

Two packed fields: hot is what any event changes; cold (carts, orders, ids of cart events) is opened and written for
cart events and for clicks on a trigger's email only. All of it is a merge: within the lateness bound no order of
reading changes a byte.
"""

from typing import Any, Final

from streams.engagement import sessions as intervals
from streams.engagement import snapshot
from streams.engagement.active import ActivePeriods
from streams.engagement.cart import CartBook
from streams.engagement.decay import HOUR_MS, DecayedSum
from streams.engagement.decisions import Decided
from streams.engagement.identity import EventMemory
from streams.engagement.kinds import CART, CHANNELS, EMAIL, TYPE_OF_CODE
from streams.engagement.orders import OrderMemory
from streams.engagement.rules import PLACED, Rules
from streams.engagement.scoring import Score, ScoreModel
from streams.engagement.windows import RollingCounters

__all__ = ["Profile", "Rules"]

_NOTHING: Final = (None,) * len(CHANNELS)


class Profile:
    """One customer, its fields as in the contract of the scores topic.

    rev: number of applied events; as_of_ms: the newest event; last_seen_ms, first_seen_ms: of events by the customer.
    hot_dirty, cold_dirty: what changed since it was packed. published_*, order_since_published: what the task last told
    about the score; not part of the state.
    """

    __slots__ = (
        "_active",
        "_carts",
        "_cold",
        "_ids",
        "_orders",
        "_sums",
        "as_of_ms",
        "cold_dirty",
        "counters",
        "customer_id",
        "first_seen_ms",
        "hot_dirty",
        "last_seen_ms",
        "order_since_published",
        "published_as_of_ms",
        "published_score",
        "rev",
        "sessions",
    )

    def __init__(self, customer_id: str, hot: list[Any] | None = None, cold: bytes | None = None) -> None:
        self.customer_id = customer_id
        self.rev = self.as_of_ms = 0
        self.last_seen_ms: int | None = None
        self.first_seen_ms: int | None = None
        self.hot_dirty = self.cold_dirty = False
        self.published_score: int | None = None
        self.published_as_of_ms = 0
        self.order_since_published = False
        self._ids: list[EventMemory | None] = [*_NOTHING]
        self._sums: list[DecayedSum | None] = [*_NOTHING]
        self._orders: OrderMemory
        self._carts: CartBook | None = None
        self._cold = cold
        if hot is None:
            self.counters, self._active = RollingCounters(), ActivePeriods()
            self.sessions: list[intervals.Interval] = []
        else:
            self._open_hot(hot)

    @property
    def carts(self) -> CartBook:
        """The customer's carts; the cold field is opened where it was not yet."""
        if self._carts is None:
            self._open_cold()
        assert self._carts is not None  # noqa: S101 - just opened
        return self._carts

    # ------------------------------------------------------------------ fold

    def apply(self, event: Any, watermark_ms: int, rules: Rules, decided: Decided) -> bool:
        """Fold one event; False where it is a duplicate. watermark_ms: its topic's before this record, -1 for none."""
        occurred_at_ms = event.occurred_at_ms
        effect = rules.effects[event.type]
        code, topic, page, placed, of_order, channel, half_life_ms, weight, weight_by_machine = effect
        if not (self._ids[topic] or self._ids_of(topic)).admit(event.event_id, occurred_at_ms):
            return False
        self.hot_dirty = True
        by_machine = topic == EMAIL and event.machine is True
        if by_machine:
            weight = weight_by_machine
        repeated = of_order and not self._order(event, code, rules.score_model, decided)
        if not repeated:
            self.rev += 1
            self.counters.add(code, occurred_at_ms)
            if weight is not None:
                self._sum(channel, half_life_ms).add(occurred_at_ms, weight)
        if occurred_at_ms > self.as_of_ms:
            self.as_of_ms = occurred_at_ms
        if event.by_customer and not by_machine:
            self._seen(occurred_at_ms, decided)
            if topic <= CART and occurred_at_ms >= watermark_ms:
                intervals.enter(self.sessions, occurred_at_ms, page, topic - placed, placed)
                if len(self.sessions) > intervals.OPEN_SESSIONS_MAX:
                    self._closed(self.sessions.pop(0), decided)
        if topic >= CART and not by_machine:
            self._cold_part(event, topic, watermark_ms, rules, decided)
        return not repeated

    def release(self, cart_watermark_ms: int, rules: Rules, decided: Decided) -> None:
        """Fold the waiting cart events and fire the timers that the cart watermark has passed."""
        self.cold_dirty = True
        self.carts.release(cart_watermark_ms, rules.cart, decided)

    def close_sessions(self, watermark_ms: int, rules: Rules, decided: Decided) -> None:  # noqa: ARG002 - the task's one shape of call
        """Let the sessions go that are final; watermark_ms: the least of the clickstream's and the cart's."""
        for session in intervals.final(self.sessions, watermark_ms):
            self._closed(session, decided)

    def deadline(self, rules: Rules) -> int | None:
        """The earliest time at which the cart watermark calls for `release`."""
        carts = self._carts
        if carts is None:
            if self._cold is None:
                return None
            carts = self.carts
        return carts.deadline(rules.cart)

    def session_deadline(self) -> int | None:
        """When the oldest open session ends for good: final once the watermark is greater."""
        return self.sessions[0][1] + intervals.SESSION_GAP_MS if self.sessions else None

    def _order(self, event: Any, code: int, model: ScoreModel, decided: Decided) -> bool:
        """Remember an order, cancellation or refund; False where it is an order known already."""
        orders, order_id, occurred_at_ms, facts = self._orders, event.order_id, event.occurred_at_ms, decided.facts
        if event.type == "order_cancelled":
            orders.cancelled(order_id, occurred_at_ms, facts)
        elif event.type == "order_refunded":
            orders.refunded(order_id, occurred_at_ms, event.total_minor, facts)
        else:
            known_ms = orders.placed(order_id, occurred_at_ms, event.total_minor, event.currency, facts)
            if known_ms is not None:
                self._repeat(code, known_ms, occurred_at_ms, model, decided)
                return False
            self.order_since_published = True
        return True

    def _repeat(self, code: int, known_ms: int, occurred_at_ms: int, model: ScoreModel, decided: Decided) -> None:
        """An order named again moves its count and weight to the earlier time; windows move on as with any event."""
        self.counters.advance(occurred_at_ms)
        weight = model.weights.get(PLACED)
        if weight is not None:
            self._sum(weight[0], weight[1]).add(occurred_at_ms, 0)
        if occurred_at_ms < known_ms:
            self.counters.move(code, known_ms, occurred_at_ms)
            if weight is not None:
                self._sum(weight[0], weight[1]).move(weight[2], known_ms, occurred_at_ms)
            decided.facts.append(("moved", PLACED, known_ms, occurred_at_ms))

    def _cold_part(self, event: Any, topic: int, watermark_ms: int, rules: Rules, decided: Decided) -> None:
        """What an event does to the carts."""
        if topic == CART:
            self.cold_dirty = True
            self.carts.read(event, watermark_ms, rules.cart, decided)
        elif event.type == "email_link_clicked" and event.trigger_id is not None:
            self.cold_dirty = True
            self.carts.clicked(event.trigger_id, event.occurred_at_ms, watermark_ms, decided)

    def _sum(self, channel: int, half_life_ms: int) -> DecayedSum:
        """The channel's sum, begun anew where the model's half-life changed."""
        total = self._sums[channel]
        if total is None or total.half_life_ms != half_life_ms:
            total = self._sums[channel] = DecayedSum(half_life_ms)
        return total

    def _seen(self, occurred_at_ms: int, decided: Decided) -> None:
        """The customer did something."""
        last_ms, first_ms = self.last_seen_ms, self.first_seen_ms
        if last_ms is None or occurred_at_ms // HOUR_MS != last_ms // HOUR_MS:
            self._active.mark(last_ms, occurred_at_ms, decided.facts)
        if last_ms is None or occurred_at_ms > last_ms:
            self.last_seen_ms = occurred_at_ms
        if first_ms is None or occurred_at_ms < first_ms:
            self.first_seen_ms = occurred_at_ms

    def _closed(self, session: list[int], decided: Decided) -> None:
        self.hot_dirty = True
        first_ms, last_ms, *counts = session
        decided.facts.append(("session", last_ms, last_ms - first_ms, *counts))

    # ------------------------------------------------------------------ pack

    def pack_hot(self, schema: int = snapshot.SCHEMA) -> bytes:
        """The hot field, canonical: equal state gives equal bytes. schema: which to write, at most the newest known."""
        self.hot_dirty = False
        as_of_ms, last_ms, first_ms, ids = self.as_of_ms, self.last_seen_ms, self.first_seen_ms, self._ids
        return snapshot.pack(
            [
                self.rev,
                as_of_ms,
                None if last_ms is None else as_of_ms - last_ms,
                None if first_ms is None else as_of_ms - first_ms,
                self._active.hours,
                self._active.days,
                [None if total is None else total.pack() for total in self._sums],
                self.counters.pack(),
                intervals.pack(self.sessions, as_of_ms),
                *[None if remembered is None else remembered.pack() for remembered in (ids[0], None, ids[2], ids[3])],
            ],
            schema,
        )

    def pack_cold(self, schema: int = snapshot.SCHEMA) -> bytes | None:
        """The cold field, canonical; None where there is nothing to keep."""
        self.cold_dirty = False
        if self._carts is None:
            return self._cold
        ids = self._ids[CART]
        parts = [self._orders.pack(), None if ids is None else ids.pack(), self._carts.pack()]
        return snapshot.pack(parts, schema) if any(part is not None for part in parts) else None

    @classmethod
    def unpack(cls, customer_id: str, hot: bytes | None, cold: bytes | None) -> "Profile":
        """The profile as stored; NewerSchema where a later version wrote it."""
        return cls(customer_id, None if hot is None else snapshot.unpack(hot), cold)

    def _open_hot(self, hot: list[Any]) -> None:
        self.rev, as_of_ms, last_age_ms, first_age_ms, hours, days, sums, counts, sessions, *ids = hot
        self.as_of_ms = as_of_ms
        self.last_seen_ms = None if last_age_ms is None else as_of_ms - last_age_ms
        self.first_seen_ms = None if first_age_ms is None else as_of_ms - first_age_ms
        self.counters = RollingCounters.unpack(as_of_ms, counts)
        self.sessions = intervals.unpack(sessions, as_of_ms)
        self._active = ActivePeriods(hours, days)
        self._sums = [None if total is None else DecayedSum.unpack(total) for total in sums]
        self._ids = [None if remembered is None else EventMemory.unpack(remembered) for remembered in ids]

    def _ids_of(self, topic: int) -> EventMemory:
        """The ids of a topic's events, looked for where they were not yet."""
        if topic == CART and self._carts is None:
            self._open_cold()
        ids = self._ids[topic]
        if ids is None:
            ids = self._ids[topic] = EventMemory()
        return ids

    def _open_cold(self) -> None:
        orders, ids, carts = (None, None, None) if self._cold is None else snapshot.unpack(self._cold)
        self._orders = OrderMemory.unpack(orders)
        self._ids[CART] = None if ids is None else EventMemory.unpack(ids)
        self._carts = CartBook(self.customer_id) if carts is None else CartBook.unpack(self.customer_id, carts)
        self._cold = None

    # ------------------------------------------------------------------ tell

    def score(self, model: ScoreModel) -> Score:
        """The engagement score as of the newest event."""
        return model.score(self._sums, self.as_of_ms)

    def score_record(self, model: ScoreModel, score: Score | None = None) -> dict[str, Any]:
        """The value of the customer's record in the scores topic; score: where it is known already."""
        score = self.score(model) if score is None else score
        return {
            "customer_id": self.customer_id,
            "score": score.hundredths / 100,
            "contributions": {channel: part / 100 for channel, part in score.contributions.items()},
            "raw": {channel: round(value, 4) for channel, value in score.raw.items()},
            "counters": self._counts(),
            "last_seen_ms": self.last_seen_ms,
            "as_of_ms": self.as_of_ms,
            "rev": self.rev,
            "model_version": model.version,
        }

    def view(self, model: ScoreModel) -> dict[str, Any]:
        """Everything known, as plain canonical values: for people, tables and comparisons."""
        score = self.score(model)
        keys = ("first_ms", "last_ms", "events", "pages", "cart_events", "order_events")
        return {
            "customer_id": self.customer_id,
            "rev": self.rev,
            "as_of_ms": self.as_of_ms,
            "last_seen_ms": self.last_seen_ms,
            "channels": {
                channel: {"window": total.window, "current": total.current, "previous": total.previous}
                for channel, total in zip(CHANNELS, self._sums, strict=True)
                if total is not None
            },
            "counters": self._counts(),
            "score": _decimal(score.hundredths),
            "contributions": {channel: _decimal(part) for channel, part in score.contributions.items()},
            "sessions": [dict(zip(keys, session, strict=True)) for session in self.sessions],
            "carts": self.carts.view(),
            "waiting": self.carts.waiting,
        }

    def _counts(self) -> dict[str, dict[str, int]]:
        """Events per type and window as of the newest event; types without any left out."""
        return {
            TYPE_OF_CODE[code]: {"1h": hour, "24h": day, "7d": week, "30d": month}
            for code, (hour, day, week, month) in self.counters.totals().items()
        }


def _decimal(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02d}"
