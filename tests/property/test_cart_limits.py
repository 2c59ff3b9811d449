"""A customer who sends as much as the contract lets through stays within 64 KiB, and both folds drop the same."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import events
from models.fields import Line
from streams.engagement.cart import CartBook, CartPolicy
from streams.engagement.cart_limits import CARTS_BYTES_MAX
from streams.engagement.decisions import Decided, DueStep
from streams.engagement.orders import OrderMemory
from streams.engagement.profile import Profile, Rules
from streams.engagement.scoring import ScoreModel
from streams.engagement.snapshot import unpack
from tests.support.cart_events import DAY, HOUR, MINUTE, SECOND, T0, cart_event
from tests.support.fold import DEFAULT_POLICY
from tests.support.fold_carts import CartFold

COLD_BYTES_MAX = 65_536
LATENESS = 10 * SECOND
FIELDS = {name for event in events.EVENTS_OF_TOPIC["cart.v1"] for name in event.model_fields}
TEXTS = ("a", "ł", "😀")


class Attacker:
    """Cart events of one customer, by a seed: how long texts are, how many carts and products, how fast time goes."""

    def __init__(self, seed: int, *, longest: int, carts: int, products: int, pace_ms: int) -> None:
        self.random, self.longest, self.pace_ms = Random(seed), longest, pace_ms
        self.ids = [self.text(f"{number}-", 512) for number in range(max(carts, products))]
        self.carts, self.products = carts, products
        self.at_ms = 0

    def text(self, start: str, most: int) -> str:
        return start + self.random.choice(TEXTS) * self.random.randint(0, min(self.longest, most) - len(start))

    def piece(self) -> dict[str, Any]:
        texts = {"name": 512, "url": 2_048, "image_url": 2_048}
        given = {name: self.text("t", most) for name, most in texts.items() if self.random.random() < 0.7}
        product = self.ids[self.random.randrange(self.products)]
        return given | {"product_id": product, "quantity": 2, "unit_price_minor": self.random.randint(1, 10**9)}

    def event(self, number: int) -> Any:
        draw, self.at_ms = self.random.random(), self.at_ms + self.random.randint(0, self.pace_ms)
        at_ms = self.at_ms - (self.random.randint(0, 2 * LATENESS) if draw < 0.2 else 0)
        fields: dict[str, Any] = {
            "cart_id": self.ids[self.random.randrange(self.carts)],
            "event_id": f"e-{number}",
            "checkout_url": self.text("c", 2_048),
        }
        kind = self.random.choices(
            ("product_added", "cart_updated", "product_removed", "cart_cleared", "order_completed"), (60, 20, 10, 8, 2)
        )[0]
        if kind.startswith("product"):
            fields |= self.piece() | {"currency": "EUR"}
        elif kind == "cart_updated":
            fields |= {"items": [self.piece() for _ in range(self.random.randint(0, 12))], "currency": "EUR"}
        elif kind == "order_completed":
            fields |= {"order_id": self.text(f"{number}", 512), "total_minor": 10}
        return cart_event(kind, at_ms, **fields)


def as_dict(event: Any) -> dict[str, Any]:
    """As the independent fold reads it: None for every absent field."""
    told = {name: getattr(event, name, None) for name in FIELDS}
    if told["items"] is not None:
        told["items"] = [{name: getattr(item, name) for name in Line.model_fields} for item in told["items"]]
    return told


class Both:
    """The book and the independent fold of one customer, fed alike."""

    def __init__(self) -> None:
        self.book, self.fold, self.policy = CartBook("c-1"), CartFold("c-1", DEFAULT_POLICY), CartPolicy()
        self.decided = Decided()
        self.watermark_ms = -1

    def read(self, event: Any) -> None:
        self.book.read(event, self.watermark_ms, self.policy, self.decided)
        self.fold.release(self.watermark_ms)
        self.fold.read(as_dict(event), self.watermark_ms)
        self.watermark_ms = max(self.watermark_ms, event.occurred_at_ms - LATENESS)
        self.book.release(self.watermark_ms, self.policy, self.decided)
        self.fold.release(self.watermark_ms)

    def reload(self) -> None:
        self.book = CartBook.unpack("c-1", msgspec.msgpack.decode(msgspec.msgpack.encode(self.book.pack())))

    def assert_equal(self) -> None:
        fold, decided = self.fold, self.decided
        assert self.book.view() == fold.view()
        assert self.book.waiting == len(fold.waiting)
        counts = (self.book.lines_dropped, self.book.folded_early, decided.carts_trimmed)
        assert counts == (fold.lines_dropped, fold.folded_early, fold.trimmed)
        assert (decided.lines_dropped, decided.folded_early) == counts[:2]
        ids = sorted(
            what.trigger_id if isinstance(what, DueStep) else what.outcome_id for what in decided.steps_and_outcomes
        )
        assert ids == sorted([*(one["trigger_id"] for one in fold.triggers), *(o["outcome_id"] for o in fold.outcomes)])


@settings(max_examples=max(10, settings().max_examples // 3))
@given(
    seed=st.integers(0, 10**9),
    longest=st.sampled_from([20, 100, 500, 2_048]),
    carts=st.sampled_from([1, 3, 60]),
    products=st.sampled_from([1, 30, 300]),
    pace_ms=st.sampled_from([100, SECOND, 20 * SECOND, 20 * MINUTE, 12 * HOUR]),
    reload_every=st.integers(1, 40),
)
def test_both_folds_drop_the_same(
    seed: int, longest: int, carts: int, products: int, pace_ms: int, reload_every: int
) -> None:
    """Lines, ends and ids agree after any attack, stored and loaded anywhere between; the weight bounds the bytes."""
    attacker, both = Attacker(seed, longest=longest, carts=carts, products=products, pace_ms=pace_ms), Both()
    for number in range(70):
        both.read(attacker.event(number))
        if number % reload_every == 0:
            both.reload()
            both.assert_equal()
            assert len(msgspec.msgpack.encode(both.book.pack())) <= CARTS_BYTES_MAX + 20_000
    both.assert_equal()


@pytest.mark.parametrize(("longest", "pace_ms"), [(100, SECOND), (512, 2 * MINUTE), (2_048, SECOND)])
def test_the_cold_field_never_passes_its_cap(longest: int, pace_ms: int) -> None:
    """Hundreds of cart ids, texts of any length, slowly and fast: the longest cold field on the way."""
    attacker = Attacker(7, longest=longest, carts=400, products=300, pace_ms=pace_ms)
    profile, decided = Profile("c-1"), Decided()
    rules = Rules(cart=CartPolicy(), score_model=ScoreModel.default())
    watermark_ms, heaviest = -1, 0
    for number in range(1_000):
        event = attacker.event(number)
        profile.apply(event, watermark_ms, rules, decided)
        watermark_ms = max(watermark_ms, event.occurred_at_ms - LATENESS)
        profile.release(watermark_ms, rules, decided)
        if number % 25 == 0:
            heaviest = max(heaviest, len(profile.pack_cold() or b""))
    assert decided.carts_trimmed > 3
    assert 16_000 < heaviest <= COLD_BYTES_MAX


def test_what_is_not_weighed_fits_beside_what_is() -> None:
    """Orders, ids, ends, clicks and recoveries, all full and all of the longest kind: less than 64 KiB less 32 KiB."""
    facts: list[Any] = []
    orders = OrderMemory()
    for number in range(200):
        orders.placed(f"o-{number}", T0 + number * 1_000_000, 10**12, "😀" * 512, facts)
        orders.refunded(f"o-{number}", T0 + number * 9_000_000, 10**12, facts)
    profile, decided = Profile("c-1"), Decided()
    rules = Rules(cart=CartPolicy(), score_model=ScoreModel.default())
    for number in range(300):
        at_ms = number * 40 * MINUTE
        cart_id = "😀" * 500 + str(number)
        for event in (
            cart_event("product_added", at_ms, cart_id=cart_id, product_id="p"),
            cart_event("cart_cleared", at_ms + 1, cart_id=cart_id),
            cart_event("order_completed", at_ms + 2, f"x{at_ms}", order_id=f"o-{number}", cart_id="other"),
        ):
            profile.apply(event, -1, rules, decided)
        profile.release(T0 + at_ms + 10, rules, decided)
    for number in range(200):
        profile.carts.clicked(f"{number:032x}", T0 + number * DAY, -1, decided)
    attribution = profile.carts._carts.attribution
    for number in range(20):
        attribution.recovered(T0 + number, T0, [f"{number + 1_000 + each:032x}" for each in range(64)], decided)
    ids, carts = unpack(profile.pack_cold() or b"")[1:]
    packed = msgspec.msgpack.encode([orders.pack(), ids, [carts[0], *carts[2:]]])
    assert len(packed) <= COLD_BYTES_MAX - CARTS_BYTES_MAX
