"""What must hold of carts for every history: order of arrival, packing, pace of releases, ids, endings."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streams.engagement.cart import CartBook, CartPolicy
from streams.engagement.decisions import Decided, DueStep, Outcome
from tests.support.cart_events import DAY, HOUR, MINUTE, T0, cart_event

LATENESS = 2 * MINUTE
ENDINGS = {"recovered", "closed", "emptied", "expired", "merged"}

POLICIES = st.sampled_from(
    [
        CartPolicy(),
        CartPolicy(order_scope="cart", cart_expiry_ms=DAY),
        CartPolicy(trigger_cooldown_ms=HOUR, min_cart_value_minor=15),
        CartPolicy(steps=(("1m", MINUTE), ("2m", 2 * MINUTE)), cart_expiry_ms=10 * MINUTE, recovery_window_ms=MINUTE),
    ]
)
# One draw an event for its time and one for what it is: drawing each field by itself takes most of the time of a test.
TIMES = st.sampled_from(
    sorted(
        unit * count + nudge
        for unit in (MINUTE // 2, MINUTE, 5 * MINUTE, HOUR, 12 * HOUR)
        for count in range(20)
        for nudge in (-1, 0, 1)
    )
)


def _variants() -> Iterator[tuple[str, dict[str, Any]]]:
    for product_id, cart_id in product(("p", "q"), (None, "a")):
        for quantity, price, currency in product((None, 2), (None, 10), (None, "EUR")):
            line = {"product_id": product_id, "quantity": quantity, "unit_price_minor": price, "currency": currency}
            yield "product_added", line | {"cart_id": cart_id}
        for quantity in (None, 1):
            yield "product_removed", {"product_id": product_id, "quantity": quantity, "cart_id": cart_id}
        for order_id, total in product(("o1", "o2"), (None, 50)):
            yield "order_completed", {"order_id": order_id, "total_minor": total, "cart_id": cart_id}
        for items in (None, [], [{"product_id": product_id}], [{"product_id": "p"}, {"product_id": "q"}]):
            yield "cart_updated", {"items": items, "cart_id": cart_id}
        for type_ in ("checkout_started", "cart_cleared"):
            yield type_, {"cart_id": cart_id}
    yield "identity_linked", {"to_customer_id": "c-2"}


VARIANTS = st.sampled_from(list(_variants()))
ROWS = st.lists(st.tuples(TIMES, VARIANTS), max_size=16)


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Cart events of one customer in the order of their times, each with an id of its own."""
    rows = enumerate(draw(ROWS))
    history = [
        cart_event(type_, at_ms, event_id=f"e{number:02}", **fields) for number, (at_ms, (type_, fields)) in rows
    ]
    return sorted(history, key=lambda event: event.occurred_at_ms)


def arrivals(data: st.DataObject, history: list[Any], disorder_ms: int) -> list[Any]:
    """The history as it arrives when each event is held up by at most disorder_ms."""
    held_up_ms = st.sampled_from([0, 1, disorder_ms // 50, disorder_ms // 7, disorder_ms - 1, disorder_ms])
    delays = {event.event_id: data.draw(held_up_ms) for event in history}
    return sorted(history, key=lambda event: event.occurred_at_ms + delays[event.event_id])


class Reader:
    """Reads as a task does: the watermark follows the newest event by LATENESS."""

    def __init__(self, policy: CartPolicy) -> None:
        self.policy, self.book, self.watermark_ms, self.decided = policy, CartBook("c-1"), -1, Decided()

    def read(self, event: Any, *, release: bool = True) -> None:
        self.book.read(event, self.watermark_ms, self.policy, self.decided)
        self.watermark_ms = max(self.watermark_ms, event.occurred_at_ms - LATENESS)
        if release:
            self.release()

    def release(self) -> None:
        self.book.release(self.watermark_ms, self.policy, self.decided)

    def finish(self) -> "Reader":
        """Let everything expire that is still open."""
        self.watermark_ms = T0 + 100 * DAY
        self.release()
        return self

    @property
    def packed(self) -> bytes:
        return msgspec.msgpack.encode(self.book.pack())

    @property
    def steps(self) -> list[DueStep]:
        return [what for what in self.decided.steps_and_outcomes if isinstance(what, DueStep)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [what for what in self.decided.steps_and_outcomes if isinstance(what, Outcome)]


def read_all(policy: CartPolicy, events: list[Any], *, release: bool = True) -> Reader:
    reader = Reader(policy)
    for event in events:
        reader.read(event, release=release)
    return reader


@given(POLICIES, histories(), st.data())
def test_within_the_lateness_the_order_of_arrival_changes_nothing(
    policy: CartPolicy, history: list[Any], data: st.DataObject
) -> None:
    """Permutations within the lateness give identical packed state and identical decisions in identical order."""
    reference = read_all(policy, history)
    shuffled = read_all(policy, arrivals(data, history, LATENESS))
    assert shuffled.packed == reference.packed
    assert shuffled.decided == reference.decided
    assert shuffled.finish().decided == reference.finish().decided


@given(POLICIES, histories(), st.data())
def test_packing_at_any_prefix_changes_nothing(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """A book packed and unpacked after any record, late ones included, goes on the same."""
    events = arrivals(data, history, DAY)
    reference, reloaded = Reader(policy), Reader(policy)
    for event in events:
        reference.read(event)
        reloaded.read(event)
        packed = reloaded.packed
        reloaded.book = CartBook.unpack("c-1", msgspec.msgpack.decode(packed))
        assert reloaded.packed == packed == reference.packed
        assert reloaded.book.deadline(policy) == reference.book.deadline(policy)
        assert reloaded.book.view() == reference.book.view()
    assert reloaded.finish().decided == reference.finish().decided


@given(POLICIES, histories(), st.data())
def test_the_pace_of_releases_changes_nothing(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """Released after every record, or only when next read: the same decisions, the same state."""
    events = arrivals(data, history, DAY)
    eager, lazy = read_all(policy, events), read_all(policy, events, release=False)
    lazy.release()
    assert (lazy.packed, lazy.decided) == (eager.packed, eager.decided)


@given(POLICIES, histories(), st.data())
def test_nothing_happens_up_to_the_deadline(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """Releasing at the deadline changes nothing, releasing just after it does; so the timer may rely on it."""
    reader = read_all(policy, arrivals(data, history, DAY))
    while (deadline_ms := reader.book.deadline(policy)) is not None:
        before, decided = reader.packed, len(reader.decided.steps_and_outcomes)
        reader.book.release(deadline_ms, policy, reader.decided)
        assert (reader.packed, len(reader.decided.steps_and_outcomes)) == (before, decided)
        reader.book.release(deadline_ms + 1, policy, reader.decided)
        assert reader.packed != before
    assert reader.book.view() == []


@given(POLICIES, histories(), st.data())
def test_no_trigger_id_is_made_twice(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """A trigger_id stands for one step of one idle time of one cart, whatever comes late."""
    reader = read_all(policy, arrivals(data, history, DAY)).finish()
    ids = [step.trigger_id for step in reader.steps]
    assert len(ids) == len(set(ids))
    assert all(step.trigger_ids[-1] == step.trigger_id for step in reader.steps)


@given(POLICIES, histories(), st.data())
def test_every_trigger_ends_with_exactly_one_cart(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """Each trigger_id stands in exactly one ending; in a second one only where an order took over the emptied cart."""
    reader = read_all(policy, arrivals(data, history, DAY)).finish()
    endings: dict[str, list[str]] = {step.trigger_id: [] for step in reader.steps}
    for outcome in reader.outcomes:
        if outcome.outcome in ENDINGS:
            for trigger_id in outcome.trigger_ids:
                endings[trigger_id].append(outcome.outcome)
    allowed = [[ending] for ending in ENDINGS] + [["emptied", "closed"], ["emptied", "recovered"]]
    assert all(names in allowed for names in endings.values())


@given(POLICIES, histories(), st.data())
def test_a_cancelled_trigger_was_made(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """No outcome names a trigger before it was made, and resumed names each at most once."""
    reader = read_all(policy, arrivals(data, history, DAY)).finish()
    made: set[str] = set()
    resumed: Counter[str] = Counter()
    for what in reader.decided.steps_and_outcomes:
        if isinstance(what, DueStep):
            made.add(what.trigger_id)
        else:
            assert made.issuperset(what.trigger_ids)
            if what.outcome == "resumed":
                resumed.update(what.trigger_ids)
    assert not resumed or max(resumed.values()) == 1


@given(POLICIES, histories())
def test_every_cart_gives_one_ending_and_one_fact(policy: CartPolicy, history: list[Any]) -> None:
    """In time: endings, less those that take over an emptied cart, are as many as carts that fired or ended unfired."""
    reader = read_all(policy, history).finish()
    facts = Counter(fact[0] for fact in reader.decided.facts)
    emptied: set[Any] = set()
    ended = 0
    for outcome in reader.outcomes:
        cart = (outcome.cart_id, outcome.last_touch_ms)
        taken_over = outcome.order_id is not None and cart in emptied and outcome.cart_total_minor is None
        if outcome.outcome == "emptied":
            emptied.add(cart)
        if outcome.outcome in ENDINGS and not taken_over:
            ended += 1
    assert reader.book.view() == []
    assert ended == facts["cart_fired"] + facts["cart_ended_unfired"]
    assert facts["cart_recovered"] == sum(outcome.outcome == "recovered" for outcome in reader.outcomes)


@given(POLICIES, histories())
def test_decisions_come_in_the_order_of_their_times(policy: CartPolicy, history: list[Any]) -> None:
    """In time, steps and outcomes are decided in event-time order, whatever the pace of releases."""
    reader = read_all(policy, history).finish()
    times = [
        what.due_ms if isinstance(what, DueStep) else what.occurred_at_ms for what in reader.decided.steps_and_outcomes
    ]
    assert times == sorted(times)


@given(POLICIES, histories(), st.data())
def test_repeats_of_orders_change_nothing(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """Copies of orders under other event ids, later within 30 d, decide nothing and leave no trace."""
    orders = [event for event in history if event.type == "order_completed"]
    copies = []
    for number, event in enumerate(orders):
        later_ms = event.occurred_at_ms - T0 + data.draw(st.integers(1, 20 * DAY))
        copies.append(cart_event("order_completed", later_ms, event_id=f"copy{number}", order_id=event.order_id))
    once = read_all(policy, history).finish()
    again = read_all(policy, sorted(history + copies, key=lambda event: event.occurred_at_ms)).finish()
    assert (again.packed, again.decided) == (once.packed, once.decided)


@given(POLICIES, histories(), st.data())
def test_carts_keep_their_limits(policy: CartPolicy, history: list[Any], data: st.DataObject) -> None:
    """An open cart has at least one line, was touched at or after a touch it knows, and fired steps in their order."""
    reader = Reader(policy)
    for event in arrivals(data, history, DAY):
        reader.read(event)
        for cart in reader.book.view():
            assert 1 <= len(cart["lines"]) <= 100
            assert cart["fired"] == [name for name, _ in policy.steps[: len(cart["fired"])]]
            assert all(line["quantity"] > 0 for line in cart["lines"])
