"""What the carts of one customer may weigh, and what goes first where they weigh more (docs/limits.md, decision 9).

The weight counts what producers choose: the UTF-8 bytes of all texts, and a charge for everything that holds them, not
less than it takes when packed. It is told by the events alone, so that every replay drops the same.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Final

from streams.engagement.cart_ends import end
from streams.engagement.cart_lines import ADDED_MS, weigh_piece
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import EFFECT_OF_CODE, Body, Entry
from streams.engagement.cart_state import Cart, key_order
from streams.engagement.decisions import Decided

CARTS_BYTES_MAX: Final = 32_768
CARTS_BYTES_KEPT: Final = 24_576
"""What is left once more than CARTS_BYTES_MAX was found, so that it is not looked for with every event."""
CART_BYTES, WAITING_BYTES, EMPTIED_BYTES, TRIGGER_BYTES = 656, 48, 64, 14

_ADDED, _REMOVED, _ITEMS, _ORDER = Body.ADDED, Body.REMOVED, Body.ITEMS, Body.ORDER


def weigh(carts: Carts, weights: Iterable[int]) -> int:
    """Return the weight of open carts, of those that an order may still take over, and of what waits (weights)."""
    total = sum(weights)
    for cart in carts.open.values():
        total += _weigh_cart(cart)
    for ended in carts.ends.values():
        if ended.emptied is not None:
            total += _weigh_emptied(ended.emptied)
    return total


def weigh_entry(entry: Entry) -> int:
    """Return the weight of an event that waits; once folded it weighs at most CART_BYTES more, and its triggers."""
    _, _, event_id, code, cart_id, _, checkout_url, body = entry
    weight = WAITING_BYTES + _bytes(event_id) + _bytes(cart_id) + _bytes(checkout_url)
    carries = EFFECT_OF_CODE[code].body
    if carries is _ADDED or carries is _REMOVED:
        weight += weigh_piece(body)
    elif carries is _ITEMS:
        for piece in body:
            weight += weigh_piece(piece)
    elif carries is _ORDER:
        weight += _bytes(body[0]) + _bytes(body[2])
    return weight


def fit(
    carts: Carts, waiting: list[Entry], weights: list[int], fold_oldest: Callable[[], None], decided: Decided
) -> int:
    """Drop what goes first until the carts weigh CARTS_BYTES_KEPT, if they weigh too much; return the weight.

    weights: of each waiting event, kept up to date; fold_oldest: fold the oldest waiting event before its time.
    """
    weight = weigh(carts, weights)
    if weight <= CARTS_BYTES_MAX:
        return weight
    decided.carts_trimmed += 1
    drops = _drops(carts, waiting, weights, fold_oldest, decided)
    while weight > CARTS_BYTES_KEPT:
        freed = next(drops)
        weight = weigh(carts, weights) if freed is None else weight - freed
    return weight


def _drops(
    carts: Carts, waiting: list[Entry], weights: list[int], fold_oldest: Callable[[], None], decided: Decided
) -> Iterator[int | None]:
    """Drop one thing after the other, in the public order; yield the weight of each, None where it must be weighed."""
    for told in (_without_urls, _without_names):
        for cart in _by_touch(carts):
            yield _describe_less(cart, told)
        for index, entry in enumerate(waiting):
            waiting[index] = _entry_with(entry, told)
            before, weights[index] = weights[index], weigh_entry(waiting[index])
            yield before - weights[index]
    while waiting:
        fold_oldest()
    yield None
    yield from _forget_emptied(carts)
    yield from _drop_lines(carts, decided)
    for cart in _by_touch(carts)[:-1]:
        decided.steps_and_outcomes.append(end(carts, cart, "expired", cart.last_touch_ms, decided))
        yield None


def _forget_emptied(carts: Carts) -> Iterator[int]:
    """Carts that an order could take over, the one emptied longest ago first."""
    ends = [
        (ended.ended_ms, key_order(cart.key), ended, cart) for ended in carts.ends.values() if (cart := ended.emptied)
    ]
    for _, _, ended, cart in sorted(ends, key=itemgetter(0, 1)):
        ended.emptied = None
        yield _weigh_emptied(cart)


def _drop_lines(carts: Carts, decided: Decided) -> Iterator[int]:
    """All lines but the newest of each cart, by the time of their newest add."""
    for cart in _by_touch(carts):
        for key in sorted(cart.lines, key=lambda key: (cart.lines[key][ADDED_MS], key))[:-1]:
            carts.lines_dropped += 1
            decided.lines_dropped += 1
            cart.lines_bytes = -1
            yield weigh_piece(cart.lines.pop(key))


def _by_touch(carts: Carts) -> list[Cart]:
    return sorted(carts.open.values(), key=lambda cart: (cart.last_touch_ms, key_order(cart.key)))


def _describe_less(cart: Cart, told: Callable[[Any], Any]) -> int:
    weight = _weigh_cart(cart)
    cart.lines = {key: told(line) for key, line in cart.lines.items()}
    cart.checkout_url, cart.lines_bytes = None, -1
    return weight - _weigh_cart(cart)


def _entry_with(entry: Entry, told: Callable[[Any], Any]) -> Entry:
    *rest, code, cart_id, shipping_minor, _, body = entry
    carries = EFFECT_OF_CODE[code].body
    if carries is _ADDED or carries is _REMOVED:
        body = told(body)
    elif carries is _ITEMS:
        body = [told(piece) for piece in body]
    return (*rest, code, cart_id, shipping_minor, None, body)


def _without_urls(piece: Any) -> Any:
    """A line or piece without url and image_url."""
    return (*piece[:5], None, None, *piece[7:])


def _without_names(piece: Any) -> Any:
    """A line or piece without its name, unless the name is all that tells it from others."""
    return piece if piece[0] is None else (piece[0], None, *piece[2:])


def _weigh_cart(cart: Cart) -> int:
    if cart.lines_bytes < 0:
        cart.lines_bytes = sum(map(weigh_piece, cart.lines.values()))
    weight = CART_BYTES + TRIGGER_BYTES * len(cart.triggers) + cart.lines_bytes
    return weight + _bytes(cart.key) + _bytes(cart.checkout_url)


def _weigh_emptied(cart: Cart) -> int:
    return EMPTIED_BYTES + TRIGGER_BYTES * len(cart.triggers) + _bytes(cart.key)


def _bytes(text: str | None) -> int:
    """UTF-8 bytes."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())
