"""One customer's events, for tests of the profile: the codec's own structs, with defaults for what is required."""

from typing import Any, cast

from models.codec import struct_of
from models.events import EVENT_TYPES, Event
from streams.engagement.cart import CartPolicy
from streams.engagement.decisions import Decided
from streams.engagement.profile import Profile, Rules
from streams.engagement.scoring import ScoreModel

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
T0 = 1_760_054_400_000
"""A midnight, 10 October 2025."""

CUSTOMER = "c-1"
RULES = Rules(cart=CartPolicy(), score_model=ScoreModel.default())
REQUIRED: dict[str, dict[str, Any]] = {
    "product_viewed": {"product_id": "p"},
    "product_clicked": {"product_id": "p"},
    "experiment_viewed": {"experiment_id": "x", "variant_id": "a"},
    "product_added": {"product_id": "p", "unit_price_minor": 1_000, "currency": "EUR"},
    "product_removed": {"product_id": "p"},
    "order_completed": {"order_id": "o"},
    "order_cancelled": {"order_id": "o"},
    "order_refunded": {"order_id": "o"},
    "identity_linked": {"to_customer_id": "c-2"},
}


def event(kind: str, at_ms: int, **fields: Any) -> Event:
    """An event of the customer; its id tells type and time unless one is given."""
    topic = EVENT_TYPES[kind].topic
    required = {"email.v1": {"email_id": "e"}, "social.v1": {"network": "n"}}.get(topic, {}) | REQUIRED.get(kind, {})
    identity = {"event_id": f"{kind} {at_ms}", "customer_id": CUSTOMER, "occurred_at_ms": at_ms}
    return cast(Event, struct_of(EVENT_TYPES[kind].model)(**(identity | required | fields)))


class Shopper:
    """A profile that is told one event after the other; facts and applied events pile up."""

    def __init__(self, rules: Rules = RULES, profile: Profile | None = None) -> None:
        self.rules = rules
        self.profile = profile or Profile(CUSTOMER)
        self.decided = Decided()

    def does(self, kind: str, at_ms: int, watermark_ms: int = -1, **fields: Any) -> bool:
        """Apply an event."""
        return self.profile.apply(event(kind, at_ms, **fields), watermark_ms, self.rules, self.decided)

    def view(self) -> dict[str, Any]:
        return self.profile.view(self.rules.score_model)

    def packed(self) -> tuple[bytes, bytes | None]:
        return self.profile.pack_hot(), self.profile.pack_cold()

    def restarted(self) -> "Shopper":
        """The same customer, loaded from what was stored."""
        return Shopper(self.rules, Profile.unpack(CUSTOMER, *self.packed()))

    def facts(self, kind: str) -> list[tuple[Any, ...]]:
        return [fact for fact in self.decided.facts if fact[0] == kind]
