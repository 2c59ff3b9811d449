"""What the operator may set for the core, worked out for each event type beforehand."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from streams.engagement.cart_rules import CartPolicy
from streams.engagement.kinds import KINDS
from streams.engagement.scoring import UNWEIGHED_OF_MACHINES, ScoreModel

PLACED: Final = "order_completed"
_ORDER_TYPES: Final = frozenset({PLACED, "order_cancelled", "order_refunded"})

TypeEffect: TypeAlias = tuple[int, int, int, int, bool, int, int, float | None, float | None]
"""What an event of a type does: code, topic, 1 for a page, 1 for an order placed, whether it concerns an order; then
the channel it weighs in, its half-life in ms, the weight (None: none), and the weight where a machine did it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator may set: how carts are judged, and the score model. effects: what follows for each type."""

    cart: CartPolicy
    score_model: ScoreModel
    effects: dict[str, TypeEffect] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "effects", {event_type: _effect(event_type, self.score_model) for event_type in KINDS})


def _effect(event_type: str, model: ScoreModel) -> TypeEffect:
    code, topic, page = KINDS[event_type]
    channel, half_life_ms, weight = model.weights.get(event_type, (topic, 0, None))
    by_machine = None if event_type in UNWEIGHED_OF_MACHINES else weight
    placed, of_order = int(event_type == PLACED), event_type in _ORDER_TYPES
    return code, topic, page, placed, of_order, channel, half_life_ms, weight, by_machine
