"""The tables of carts: step names, policy, compaction of events, and every cell of the state machine."""

from pathlib import Path
from typing import Any

import pytest

from models.events import EVENTS_OF_TOPIC
from streams.engagement.cart import CartPolicy
from streams.engagement.cart_rules import (
    EFFECT_OF_CODE,
    EFFECTS,
    NEXT,
    TRANSITIONS,
    Action,
    Row,
    State,
    compact,
    state_diagram,
    step_name,
)
from tests.support.cart_events import DAY, HOUR, MINUTE, Play, added, cart_event, checkout, cleared, linked, ordered


@pytest.mark.parametrize(
    ("step_ms", "name"),
    [
        (900_000, "15m"),
        (HOUR, "1h"),
        (DAY, "24h"),
        (MINUTE, "1m"),
        (90_000, "90s"),
        (500, "500ms"),
        (61_001, "61001ms"),
    ],
)
def test_a_step_is_named_by_the_largest_unit_that_divides_it(step_ms: int, name: str) -> None:
    """A step's name is its duration in the largest of h, m, s, ms that divides it."""
    assert step_name(step_ms) == name


@pytest.mark.parametrize(
    "steps", [(), (("60m", HOUR),), (("0ms", 0),), (("1h", HOUR), ("1h", HOUR)), (("1h", HOUR), ("15m", 15 * MINUTE))]
)
def test_a_policy_refuses_steps_that_do_not_grow_or_bear_another_name(steps: Any) -> None:
    """Steps are strictly increasing and named by their durations, because the name is part of the trigger_id."""
    with pytest.raises(ValueError, match="steps must be"):
        CartPolicy(steps=steps)


def test_every_type_of_the_cart_topic_has_an_effect_or_is_known_to_have_none() -> None:
    """cart_viewed, order_cancelled and order_refunded do not concern carts; every other type of the topic does."""
    types = {model.model_fields["type"].default for model in EVENTS_OF_TOPIC["cart.v1"]}
    assert types - {name.split(" ")[0] for name in EFFECTS} == {"cart_viewed", "order_cancelled", "order_refunded"}


def test_codes_of_waiting_events_are_the_positions_in_the_table() -> None:
    """A stored code leads back to its effect."""
    assert [effect.code for effect in EFFECT_OF_CODE] == list(range(len(EFFECTS)))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (added(0), "product_added"),
        (cart_event("cart_updated", 0), "cart_updated"),
        (cart_event("cart_updated", 0, items=[]), "cart_updated with items=[]"),
        (cart_event("cart_updated", 0, items=[{"product_id": "p"}]), "cart_updated with items"),
        (linked(0), "identity_linked"),
    ],
)
def test_an_event_waits_under_the_code_of_its_effect(event: Any, code: str) -> None:
    """cart_updated is three kinds of event: with lines, with none, without items."""
    entry = compact(event)
    assert entry is not None
    assert entry[3] == EFFECTS[code].code


def test_events_that_do_not_concern_carts_are_not_compacted() -> None:
    """cart_viewed leaves nothing to fold."""
    assert compact(cart_event("cart_viewed", 0)) is None


def _none() -> Play:
    return Play().advance(HOUR)


def _armed() -> Play:
    return Play().fold(added(HOUR))


def _fired() -> Play:
    return Play().fold(added(HOUR)).advance(HOUR + 20 * MINUTE)


STARTS = {State.NONE: _none, State.ARMED: _armed, State.FIRED: _fired}
NOW = HOUR + 5 * MINUTE, HOUR + 5 * MINUTE, HOUR + 30 * MINUTE

HAPPENINGS: dict[Row, Any] = {
    Row.OPENER: lambda play, now: play.fold(added(now)),
    Row.TOUCH: lambda play, now: play.fold(checkout(now)),
    Row.LATE_OPENER: lambda play, now: play.read(added(HOUR - 1)),
    Row.LATE_TOUCH: lambda play, now: play.read(checkout(HOUR - 1)),
    Row.ORDER: lambda play, now: play.fold(ordered(now)),
    Row.CLEAR_OR_LINK: lambda play, now: play.fold(cleared(now)),
    Row.STEP: lambda play, now: play.advance(3 * HOUR),
    Row.EXPIRY: lambda play, now: play.advance(32 * DAY),
}


def _state(play: Play) -> State:
    carts = play.carts
    return State.NONE if not carts else State.FIRED if carts[0]["fired"] else State.ARMED


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("row", list(Row))
def test_every_cell_of_the_table_is_what_the_book_does(row: Row, state: State) -> None:
    """A cart in each state goes to the state that TRANSITIONS and NEXT name."""
    play = STARTS[state]()
    assert _state(play) is state
    HAPPENINGS[row](play, NOW[state])
    following = NEXT[TRANSITIONS[row][state]]
    if (row, state) == (Row.EXPIRY, State.ARMED):
        following = State.NONE  # its steps fire first, so that it has passed through FIRED
    assert _state(play) is (state if following is None else following)


def test_the_table_has_a_column_for_each_state_and_a_next_state_for_each_action() -> None:
    """No action is without a next state, none is unused."""
    assert {action for columns in TRANSITIONS.values() for action in columns} == set(Action) == set(NEXT)
    assert set(TRANSITIONS) == set(Row)


def test_the_diagram_in_the_docs_is_made_from_the_table() -> None:
    """docs/carts.md shows what state_diagram() gives, and names every effect; no label breaks Mermaid's syntax."""
    page = (Path(__file__).parents[2] / "docs" / "carts.md").read_text()
    assert f"```mermaid\n{state_diagram()}\n```" in page
    assert [name for name in EFFECTS if name not in page] == []
    assert all(line.count(":") == 1 for line in state_diagram().splitlines() if ":" in line)


def test_each_action_is_an_arrow_of_the_diagram() -> None:
    """Each action other than nothing is an arrow."""
    arrows = [line for line in state_diagram().splitlines() if "-->" in line and "[*]" not in line]
    assert len(arrows) == sum(action is not Action.NOTHING for columns in TRANSITIONS.values() for action in columns)
    assert "    ARMED --> FIRED: step due / trigger or suppressed" in arrows
