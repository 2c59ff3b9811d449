"""The cart state machine as tables: what happens to a cart in each state, which event does it, and the limits it keeps.

TRANSITIONS holds every transition; EFFECTS says which row of it an event takes, on time and late.
`streams.engagement.cart_fold` carries the actions out.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

from models.events import CartEvent
from models.fields import Line

MINUTE_MS = 60_000
DAY_MS = 86_400_000
WAITING_EVENTS_MAX = 64
OPEN_CARTS_MAX = 20
LINES_MAX = 100
TOUCHES_MAX = 64
ENDS_MAX = 64
END_KEY_BYTES_MAX = 36
USED_MAX = 2
ORDERS_MAX = 128
TAKE_OVER_MS = 10 * MINUTE_MS
AFTER_ORDER_MS = MINUTE_MS
TOMBSTONE_MS = 30 * DAY_MS
REPEATED_ORDER_MS = 30 * DAY_MS

_UNITS = (("h", 3_600_000), ("m", MINUTE_MS), ("s", 1_000), ("ms", 1))


@lru_cache(maxsize=256)
def step_name(step_ms: int) -> str:
    """Return a step's name: its duration in the largest of h, m, s, ms that divides it.

    >>> [step_name(ms) for ms in (86_400_000, 900_000, 90_000, 1_500)]
    ['24h', '15m', '90s', '1500ms']
    """
    return next(f"{step_ms // unit}{name}" for name, unit in _UNITS if step_ms % unit == 0)


@dataclass(frozen=True, slots=True)
class CartPolicy:
    """The settings carts depend on; durations in ms, money in minor units.

    steps: (name, duration), strictly increasing, each named by `step_name`; ValueError where they are not.
    """

    steps: tuple[tuple[str, int], ...] = (("15m", 15 * MINUTE_MS), ("1h", 60 * MINUTE_MS), ("24h", DAY_MS))
    cart_expiry_ms: int = 30 * DAY_MS
    order_scope: Literal["customer", "cart"] = "customer"
    recovery_window_ms: int = 7 * DAY_MS
    trigger_cooldown_ms: int = 0
    min_cart_value_minor: int = 0

    def __post_init__(self) -> None:
        if not self.steps or any(step_ms <= 0 or name != step_name(step_ms) for name, step_ms in self.steps):
            raise ValueError(f"steps must be named by their durations: {self.steps}")
        if any(longer <= shorter for (_, shorter), (_, longer) in pairwise(self.steps)):
            raise ValueError(f"steps must be strictly increasing: {self.steps}")


class State(IntEnum):
    """Where a cart is; the index into a row of TRANSITIONS."""

    NONE = 0
    ARMED = 1
    FIRED = 2


class Action(Enum):
    """What happens to a cart; the value is for people."""

    NOTHING = "nothing"
    OPEN = "opens, unless an order forbids it"
    MOVE = "due times move"
    RESUME = "every step re-arms (resumed)"
    OPEN_LATE = "opens at its own time, unless an order or the last end forbids it"
    MOVE_IF_NEWER = "due times move if it is newer than the last touch"
    KEEP = "due times and steps stay"
    TAKE_OVER = "a cart emptied up to 10 min before is closed or recovered"
    CLOSE = "lines not newer than it end"
    FIRE = "trigger or suppressed"
    EXPIRE = "expired"


class Row(Enum):
    """What can happen to a cart; the value is for people."""

    OPENER = "opener"
    TOUCH = "touch"
    LATE_OPENER = "late opener"
    LATE_TOUCH = "late touch"
    ORDER = "order"
    CLEAR_OR_LINK = "clear or link"
    STEP = "step due"
    EXPIRY = "expiry"


Columns: TypeAlias = tuple[Action, Action, Action]

TRANSITIONS: dict[Row, Columns] = {
    #                   NONE              ARMED                 FIRED
    Row.OPENER: (Action.OPEN, Action.MOVE, Action.RESUME),
    Row.TOUCH: (Action.NOTHING, Action.MOVE, Action.RESUME),
    Row.LATE_OPENER: (Action.OPEN_LATE, Action.MOVE_IF_NEWER, Action.KEEP),
    Row.LATE_TOUCH: (Action.NOTHING, Action.MOVE_IF_NEWER, Action.KEEP),
    Row.ORDER: (Action.TAKE_OVER, Action.CLOSE, Action.CLOSE),
    Row.CLEAR_OR_LINK: (Action.NOTHING, Action.CLOSE, Action.CLOSE),
    Row.STEP: (Action.NOTHING, Action.FIRE, Action.FIRE),
    Row.EXPIRY: (Action.NOTHING, Action.NOTHING, Action.EXPIRE),
}

NEXT: dict[Action, State | None] = {
    Action.NOTHING: None,
    Action.OPEN: State.ARMED,
    Action.MOVE: State.ARMED,
    Action.RESUME: State.ARMED,
    Action.OPEN_LATE: State.ARMED,
    Action.MOVE_IF_NEWER: None,
    Action.KEEP: None,
    Action.TAKE_OVER: None,
    Action.CLOSE: State.NONE,
    Action.FIRE: State.FIRED,
    Action.EXPIRE: State.NONE,
}
"""The state after an action; None: as before. A removal of the last line ends the cart (NONE) after its action."""


# Events at one time fold in this order, then by event_id.
TOUCH_RANK, ORDER_RANK, CLEAR_RANK = 0, 1, 2


class Body(Enum):
    """What an event carries besides its cart, shipping and checkout url."""

    NOTHING = 0
    ADDED = 1
    REMOVED = 2
    ITEMS = 3
    ORDER = 4


class Ending(Enum):
    """Which open carts an event ends: those in the order's scope, the named one, all of the customer."""

    ORDER = "closed or recovered"
    CLEAR = "emptied"
    LINK = "merged"


class Effect(NamedTuple):
    """What events of one kind do. `code` is stored with waiting events: never reuse one."""

    code: int
    rank: int
    on_time: Columns
    late: Columns
    body: Body = Body.NOTHING
    checkout: bool = False
    after_order: bool = False
    """Whether it may open a cart within AFTER_ORDER_MS after an order."""
    ends: Ending | None = None


_OPENER = TRANSITIONS[Row.OPENER], TRANSITIONS[Row.LATE_OPENER]
_TOUCH = TRANSITIONS[Row.TOUCH], TRANSITIONS[Row.LATE_TOUCH]
_ORDER = TRANSITIONS[Row.ORDER], TRANSITIONS[Row.ORDER]
_END = TRANSITIONS[Row.CLEAR_OR_LINK], TRANSITIONS[Row.CLEAR_OR_LINK]

EFFECTS: dict[str, Effect] = {
    "product_added": Effect(0, TOUCH_RANK, *_OPENER, Body.ADDED, after_order=True),
    "cart_updated with items": Effect(1, TOUCH_RANK, *_OPENER, Body.ITEMS),
    "product_removed": Effect(2, TOUCH_RANK, *_TOUCH, Body.REMOVED),
    "cart_updated": Effect(3, TOUCH_RANK, *_TOUCH),
    "checkout_started": Effect(4, TOUCH_RANK, *_TOUCH, checkout=True),
    "checkout_step_completed": Effect(5, TOUCH_RANK, *_TOUCH, checkout=True),
    "payment_info_entered": Effect(6, TOUCH_RANK, *_TOUCH, checkout=True),
    "order_completed": Effect(7, ORDER_RANK, *_ORDER, Body.ORDER, ends=Ending.ORDER),
    "cart_cleared": Effect(8, CLEAR_RANK, *_END, ends=Ending.CLEAR),
    "cart_updated with items=[]": Effect(9, CLEAR_RANK, *_END, ends=Ending.CLEAR),
    "identity_linked": Effect(10, TOUCH_RANK, *_END, ends=Ending.LINK),
}
"""Every event that concerns carts; cart_viewed, order_cancelled and order_refunded do not."""

EFFECT_OF_CODE = tuple(sorted(EFFECTS.values(), key=lambda effect: effect.code))
_CART_UPDATED = EFFECTS["cart_updated"].code
# Looking a member up in its Enum costs more than the rest of a line.
_ADDED, _REMOVED, _ORDERED = Body.ADDED, Body.REMOVED, Body.ORDER

Piece: TypeAlias = tuple[str | None, str | None, int | None, int | None, str | None, str | None, str | None]
"""A product as an event gives it: product_id, name, quantity, unit_price_minor, currency, url, image_url."""

Entry: TypeAlias = tuple[int, int, str, int, str | None, int | None, str | None, Any]
"""A cart event as it waits: occurred_at_ms, rank, event_id, code, cart_id, shipping_minor, checkout_url, body.

The body is a Piece, a list of Pieces, or an order's (order_id, total_minor, currency)."""


def compact(event: CartEvent) -> Entry | None:
    """Return what folding needs of an event, or None where it does not concern carts."""
    effect = EFFECTS.get(event.type)
    if effect is None:
        return None
    carries = effect.body
    body: Any = None
    if carries is _ADDED or carries is _REMOVED:
        body = _piece(event, event.currency)
    elif carries is _ORDERED:
        body = (event.order_id, event.total_minor, event.currency)
    elif effect.code == _CART_UPDATED and event.items is not None:
        effect = EFFECTS["cart_updated with items" if event.items else "cart_updated with items=[]"]
        body = [_piece(item, event.currency) for item in event.items]
    return (
        event.occurred_at_ms,
        effect.rank,
        event.event_id,
        effect.code,
        event.cart_id,
        event.shipping_minor,
        event.checkout_url,
        body,
    )


def unpack_entry(value: list[Any]) -> Entry:
    """Return an event that waited in msgpack, which knows lists alone."""
    time_ms, rank, event_id, code, cart_id, shipping_minor, checkout_url, body = value
    carries = EFFECT_OF_CODE[code].body
    if carries is Body.ITEMS:
        body = [tuple(piece) for piece in body]
    elif carries is not Body.NOTHING:
        body = tuple(body)
    return time_ms, rank, event_id, code, cart_id, shipping_minor, checkout_url, body


def _piece(of: CartEvent | Line, currency: str | None) -> Piece:
    return (of.product_id, of.name, of.quantity, of.unit_price_minor, currency, of.url, of.image_url)


def state_diagram() -> str:
    """Return the state machine as a Mermaid diagram, made from TRANSITIONS and NEXT."""
    arrows = [
        f"    {state.name} --> {(state if to is None else to).name}: {row.value} / {action.value}"
        for row, columns in TRANSITIONS.items()
        for state, action in zip(State, columns, strict=True)
        if action is not Action.NOTHING
        for to in (NEXT[action],)
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> NONE", *arrows])
