"""Timers of carts: steps of abandonment and expiry."""

from streams.engagement import cart_lines
from streams.engagement.cart_ends import end, outcome_of
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import CartPolicy
from streams.engagement.cart_state import Cart, key_order
from streams.engagement.decisions import Decided, DueStep


def next_due(carts: Carts, policy: CartPolicy) -> int | None:
    """Return the due time of the earliest timer, in epoch ms."""
    earliest_ms: int | None = None
    for cart in carts.open.values():
        due_ms, _ = cart.due(policy)
        if earliest_ms is None or due_ms < earliest_ms:
            earliest_ms = due_ms
    return earliest_ms


def fire(carts: Carts, clock_ms: int, policy: CartPolicy, decided: Decided) -> None:
    """Fire every step and expiry due before the clock, by due time, then cart_id."""
    while carts.open:
        cart, *others = carts.open.values()
        if others:
            cart = min(carts.open.values(), key=lambda cart: (cart.due(policy)[0], key_order(cart.key)))
        due_ms, index = cart.due(policy)
        if due_ms >= clock_ms:
            return
        if index == len(policy.steps):
            decided.steps_and_outcomes.append(end(carts, cart, "expired", due_ms, decided))
        else:
            _fire_step(carts, cart, index, policy, decided)


def catch_up(carts: Carts, cart: Cart, clock_ms: int, policy: CartPolicy, decided: Decided) -> None:
    """Of the steps due before the clock of a cart opened late, let only the last give a record."""
    opened_ms = cart.last_touch_ms
    past = [step_ms for _, step_ms in policy.steps if opened_ms + step_ms < clock_ms]
    if past:
        cart.fired = past[:-1]
        _fire_step(carts, cart, len(past) - 1, policy, decided, first_due_ms=opened_ms + past[0])


def _fire_step(
    carts: Carts, cart: Cart, index: int, policy: CartPolicy, decided: Decided, *, first_due_ms: int | None = None
) -> None:
    name, step_ms = policy.steps[index]
    due_ms = cart.last_touch_ms + step_ms
    cart.fired.append(step_ms)
    total_minor, currency = cart.total()
    reason = _suppressed(carts, total_minor, due_ms, policy)
    if reason is not None:
        outcome = outcome_of(carts, cart, "suppressed", due_ms)
        outcome.step, outcome.due_ms, outcome.reason = name, due_ms, reason
        decided.steps_and_outcomes.append(outcome)
        return
    carts.last_due_ms = due_ms if carts.last_due_ms is None else max(due_ms, carts.last_due_ms)
    cart.triggered(step_ms)
    if cart.first_due_ms is None:
        cart.first_due_ms = due_ms if first_due_ms is None else first_due_ms
        decided.facts.append(("cart_fired", cart.opened_ms, cart.first_due_ms))
    decided.steps_and_outcomes.append(
        DueStep(
            customer_id=carts.customer_id,
            cart_id=cart.key,
            kind=cart.kind,
            step=name,
            due_ms=due_ms,
            last_touch_ms=cart.last_touch_ms,
            first_due_ms=cart.first_due_ms,
            items=cart_lines.items(cart.lines),
            total_minor=total_minor,
            currency=currency,
            shipping_minor=cart.shipping_minor,
            checkout_url=cart.checkout_url,
            triggers=cart.triggers[:],
        )
    )


def _suppressed(carts: Carts, total_minor: int | None, due_ms: int, policy: CartPolicy) -> str | None:
    """Return why a step gives no trigger, None where it does."""
    if total_minor is not None and total_minor < policy.min_cart_value_minor:
        return "below_min_value"
    cooldown_ms, last_ms = policy.trigger_cooldown_ms, carts.last_due_ms
    return "cooldown" if cooldown_ms and last_ms is not None and due_ms - last_ms < cooldown_ms else None
