"""How carts end: by orders, clears, logins and age; on time or late, whole or in part."""

from typing import NamedTuple

from models.outputs import OutcomeName
from streams.engagement.cart_lines import ADDED_MS
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import CartPolicy, Effect, Ending, Entry
from streams.engagement.cart_state import Cart, CartKey, key_order
from streams.engagement.decisions import Decided, Outcome

# Looking a member up in its Enum costs more than the rest of a line.
_ORDER, _CLEAR = Ending.ORDER, Ending.CLEAR


class Order(NamedTuple):
    """What carts need of an order; total in minor units."""

    order_id: str
    total_minor: int | None
    currency: str | None


def outcome_of(carts: Carts, cart: Cart, name: OutcomeName, occurred_at_ms: int) -> Outcome:
    """Return an outcome of the cart as it is now, with all its triggers."""
    total_minor, currency = cart.total()
    return Outcome(
        outcome=name,
        customer_id=carts.customer_id,
        cart_id=cart.key,
        kind=cart.kind,
        last_touch_ms=cart.last_touch_ms,
        trigger_ids=cart.trigger_ids(carts.customer_id),
        occurred_at_ms=occurred_at_ms,
        cart_total_minor=total_minor,
        currency=currency,
        first_due_ms=cart.first_due_ms,
    )


def end(carts: Carts, cart: Cart, name: OutcomeName, ended_ms: int, decided: Decided) -> Outcome:
    """End an open cart and return its outcome. Fact: it ended before a step fired, where none did."""
    carts.ended(cart, ended_ms, emptied=name == "emptied")
    if cart.first_due_ms is None:
        decided.facts.append(("cart_ended_unfired", cart.opened_ms))
    return outcome_of(carts, cart, name, ended_ms)


def fold_end(carts: Carts, entry: Entry, effect: Effect, policy: CartPolicy, decided: Decided) -> None:
    """Fold an order, a clear or a login: of each cart it reaches that was open at its time, all lines not newer end."""
    if effect.ends is _ORDER:
        _fold_order(carts, entry, policy, decided)
        return
    time_ms, key = entry[0], entry[4]
    keys: set[CartKey] | None = None
    name: OutcomeName = "merged"
    if effect.ends is _CLEAR:
        keys, name = {key}, "emptied"
    for cart in _reached(carts, time_ms, keys):
        part = _closed_part(carts, cart, time_ms)
        decided.steps_and_outcomes.append(part or end(carts, cart, name, time_ms, decided))


def _fold_order(carts: Carts, entry: Entry, policy: CartPolicy, decided: Decided) -> None:
    time_ms, key, order = entry[0], entry[4], Order(*entry[7])
    if carts.repeats(order.order_id, time_ms):
        return
    keys = {key, None} if policy.order_scope == "cart" and key is not None else None
    taken_over = carts.take_over(time_ms, keys)
    outcomes = [
        _closed_part(carts, cart, time_ms) or end(carts, cart, "closed", time_ms, decided)
        for cart in _reached(carts, time_ms, keys)
    ]
    outcomes += [outcome_of(carts, cart, "closed", time_ms) for cart in taken_over]
    carts.ordered(time_ms)
    for outcome in outcomes:
        outcome.order_id = order.order_id
        _judge(carts, outcome, policy, decided)
    if outcomes:
        _put_total(max(outcomes, key=lambda outcome: (outcome.last_touch_ms, key_order(outcome.cart_id))), order)
    decided.steps_and_outcomes += outcomes


def _judge(carts: Carts, outcome: Outcome, policy: CartPolicy, decided: Decided) -> None:
    """Tell a recovered cart from one that was only closed, by the order's time and the cart's first due."""
    order_ms, first_due_ms = outcome.occurred_at_ms, outcome.first_due_ms
    if first_due_ms is None:
        return
    if order_ms <= first_due_ms:
        outcome.reason = "ordered_before_due"
    elif order_ms <= first_due_ms + policy.recovery_window_ms:
        outcome.outcome = "recovered"
        carts.attribution.recovered(order_ms, first_due_ms, outcome.trigger_ids, decided)


def _put_total(outcome: Outcome, order: Order) -> None:
    """Put the order's total on an outcome; of two currencies the order's is named, for a record names one."""
    outcome.order_total_minor = order.total_minor
    if order.total_minor is not None and order.currency is not None:
        if outcome.currency not in {None, order.currency}:
            outcome.cart_total_minor = None
        outcome.currency = order.currency


def _reached(carts: Carts, time_ms: int, keys: set[CartKey] | None) -> list[Cart]:
    """Return the open carts with these keys (None: any) opened at or before a time, by cart_id."""
    return [cart for cart in carts.in_order() if cart.opened_ms <= time_ms and (keys is None or cart.key in keys)]


def _closed_part(carts: Carts, cart: Cart, time_ms: int) -> Outcome | None:
    """Take the lines not newer than a late event out of a cart and return their outcome; None where no line would stay.

    What stays is the same cart; its triggers stay with it.
    """
    staying = {key: line for key, line in cart.lines.items() if line[ADDED_MS] > time_ms}
    if not staying:
        return None
    cart.lines = {key: line for key, line in cart.lines.items() if key not in staying}
    outcome = outcome_of(carts, cart, "closed", time_ms)
    outcome.last_touch_ms = cart.newest_touch_until(time_ms)
    outcome.trigger_ids, outcome.first_due_ms = [], None
    cart.keep_after(time_ms, staying)
    return outcome
