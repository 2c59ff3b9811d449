"""Folding one event into a customer's carts: carries out what the tables of cart_rules say."""

from typing import Any

from streams.engagement import cart_lines
from streams.engagement.cart_ends import end, fold_end, outcome_of
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import EFFECT_OF_CODE, OPEN_CARTS_MAX, Action, Body, CartPolicy, Effect, Entry, State
from streams.engagement.cart_state import Cart, key_order
from streams.engagement.cart_steps import catch_up
from streams.engagement.decisions import Decided

# Looking a member up in its Enum costs more than the rest of a line.
_NONE, _ARMED, _FIRED = (int(state) for state in State)
_NOTHING, _RESUME, _KEEP = Action.NOTHING, Action.RESUME, Action.KEEP
_ADDED, _ITEMS = Body.ADDED, Body.ITEMS


def fold(carts: Carts, entry: Entry, late_at_ms: int | None, policy: CartPolicy, decided: Decided) -> None:
    """Fold an event; `late_at_ms` is the clock at which it is late, None where it is on time."""
    effect = EFFECT_OF_CODE[entry[3]]
    if effect.ends is not None:
        fold_end(carts, entry, effect, policy, decided)
        return
    cart = carts.open.get(entry[4])
    columns = effect.on_time if late_at_ms is None else effect.late
    if cart is not None:
        _touch(carts, cart, entry, effect, columns[_FIRED if cart.fired else _ARMED], decided)
    elif columns[_NONE] is not _NOTHING and not _forbidden(carts, entry, effect, late_at_ms):
        cart = _open(carts, entry, decided)
        _touch(carts, cart, entry, effect, columns[_NONE], decided)
        if late_at_ms is not None:
            catch_up(carts, cart, late_at_ms, policy, decided)


def _forbidden(carts: Carts, entry: Entry, effect: Effect, late_at_ms: int | None) -> bool:
    time_ms, key, after_order = entry[0], entry[4], effect.after_order
    if late_at_ms is None:
        return carts.order_forbids(time_ms, time_ms, after_order=after_order)
    return carts.order_forbids(time_ms, late_at_ms, after_order=after_order) or carts.end_forbids(key, time_ms)


def _open(carts: Carts, entry: Entry, decided: Decided) -> Cart:
    time_ms, key = entry[0], entry[4]
    if len(carts.open) >= OPEN_CARTS_MAX:
        oldest = min(carts.open.values(), key=lambda cart: (cart.last_touch_ms, key_order(cart.key)))
        decided.steps_and_outcomes.append(end(carts, oldest, "expired", time_ms, decided))
    return carts.opened(key, time_ms)


def _touch(carts: Carts, cart: Cart, entry: Entry, effect: Effect, action: Action, decided: Decided) -> None:
    touch_ms, _, _, _, _, shipping_minor, checkout_url, body = entry
    if action is _RESUME:
        _resume(carts, cart, touch_ms, decided)
    if touch_ms > cart.last_touch_ms and action is not _KEEP:
        cart.last_touch_ms = touch_ms
    cart.touched(touch_ms)
    if effect.checkout:
        cart.checkout = True
    if shipping_minor is not None:
        cart.shipping_minor = shipping_minor
    if checkout_url is not None:
        cart.checkout_url = checkout_url
    if body is not None:
        if not _change_lines(cart, effect.body, body, touch_ms):
            carts.lines_dropped += 1
            decided.lines_dropped += 1
        if not cart.lines:
            decided.steps_and_outcomes.append(end(carts, cart, "emptied", cart.last_touch_ms, decided))


def _change_lines(cart: Cart, carries: Body, body: Any, touch_ms: int) -> bool:
    """Add, remove or replace lines; False where a line was dropped because the cart is full."""
    if carries is _ITEMS:
        if touch_ms >= cart.last_touch_ms:
            cart_lines.replace(cart.lines, body, touch_ms)
            cart.lines_bytes = -1
        return True
    if cart.lines_bytes < 0:
        return _change_line(cart, carries, body, touch_ms)
    key = cart_lines.key_of(body[0], body[1])
    before = cart_lines.weigh_line(cart.lines, key)
    done = _change_line(cart, carries, body, touch_ms)
    cart.lines_bytes += cart_lines.weigh_line(cart.lines, key) - before
    return done


def _change_line(cart: Cart, carries: Body, body: Any, touch_ms: int) -> bool:
    if carries is _ADDED:
        return cart_lines.add(cart.lines, body, touch_ms)
    cart_lines.remove(cart.lines, body)
    return True


def _resume(carts: Carts, cart: Cart, touch_ms: int, decided: Decided) -> None:
    """Re-arm every step; the outcome names the triggers since the last touch, which is now answered."""
    outcome = outcome_of(carts, cart, "resumed", touch_ms)
    outcome.trigger_ids = cart.trigger_ids(carts.customer_id, since_ms=cart.last_touch_ms)
    decided.steps_and_outcomes.append(outcome)
    cart.fired.clear()
