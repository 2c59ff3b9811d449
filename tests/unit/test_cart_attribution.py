"""Attribution of recovered carts: a merge of clicks and recoveries, independent of which topic is read first."""

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import msgspec
import pytest

from streams.engagement.cart_attribution import Attribution
from streams.engagement.decisions import Decided

IDS = ["0123456789abcdef" * 2, *(f"{n:032x}" for n in range(1, 200))]


def _after(happenings: Iterable[tuple[Any, ...]], decided: Decided) -> Attribution:
    attribution = Attribution()
    for happening in happenings:
        if len(happening) == 1:
            attribution.recovered(happening[0], 7, IDS[:2], decided)
        else:
            trigger_id, clicked_ms, watermark_ms = happening
            attribution.clicked(trigger_id, clicked_ms, watermark_ms, decided)
    return attribution


def _facts(*happenings: tuple[Any, ...]) -> dict[bool, int]:
    """Net recovered carts by attributed, after clicks (id, clicked_ms, watermark_ms) and a recovery (order_ms,)."""
    decided = Decided()
    _after(happenings, decided)
    net = {False: 0, True: 0}
    for name, first_due_ms, attributed, carts in decided.facts:
        assert (name, first_due_ms) == ("cart_recovered", 7)
        net[attributed] += carts
    return net


@pytest.mark.parametrize(
    ("click", "attributed"),
    [
        ((IDS[0], 99, 100), True),
        ((IDS[1], 99, -1), True),
        ((IDS[0], 100, 50), False),
        ((IDS[0], 99, 101), False),
        ((IDS[2], 99, 50), False),
        (("no id", 99, 50), False),
        (("Z" * 32, 99, 50), False),
    ],
)
def test_a_click_before_the_order_in_time_and_reading_attributes(click: tuple[Any, ...], attributed: bool) -> None:
    """clicked_ms < order_ms, and the email watermark at reading <= order_ms; in either order of reading."""
    expected = {attributed: 1, not attributed: 0}
    assert _facts(click, (100,)) == _facts((100,), click) == expected


def test_a_second_click_changes_nothing() -> None:
    """A recovery turns once."""
    assert _facts((100,), (IDS[0], 50, 50), (IDS[1], 60, 60)) == {False: 0, True: 1}


def test_all_useful_clicks_of_a_trigger_are_kept() -> None:
    """A later-read click helps where it is earlier: none that is best in time or in watermark may be forgotten."""
    clicks = [(IDS[0], 90, 10), (IDS[0], 20, 60), (IDS[0], 95, 65)]
    for order_ms, attributed in ((91, 1), (50, 0), (61, 1), (20, 0), (5, 0)):
        nets = [_facts(*order, (order_ms,)) for order in permutations(clicks)]
        assert nets == [{True: attributed, False: 1 - attributed}] * 6


def test_state_does_not_depend_on_which_topic_is_read_first() -> None:
    """Clicks and recoveries packed after any interleaving are equal."""
    happenings: list[tuple[Any, ...]] = [(IDS[0], 50, 50), (IDS[0], 40, 60), (100,), (70,), (IDS[1], 60, 90)]
    packed = set()
    for order in permutations(happenings):
        packed.add(msgspec.msgpack.encode(_after(order, Decided()).pack()))
    assert len(packed) == 1


@pytest.mark.parametrize(("again", "kept"), [((50, 50), 1), ((50, 51), 1), ((51, 50), 1), ((51, 49), 2), ((49, 51), 2)])
def test_a_click_beaten_by_another_is_not_kept(again: tuple[int, int], kept: int) -> None:
    """A second click of a trigger stays only where it is earlier, or was read at a lesser watermark."""
    first = (IDS[0], 50, 50)
    for order in ((first, (IDS[0], *again)), ((IDS[0], *again), first)):
        clicks, _ = _after(order, Decided()).pack()
        assert len(clicks) == kept


def test_limits_keep_the_newest() -> None:
    """64 clicks, 8 recoveries, the newest of each."""
    attribution, decided = Attribution(), Decided()
    for n in range(70):
        attribution.clicked(IDS[n], n, 0, decided)
        attribution.recovered(n, 7, [IDS[100 + n]], decided)
    clicks, recoveries = attribution.pack()
    assert [click[0] for click in clicks] == list(range(6, 70))
    assert [recovery[0] for recovery in recoveries] == list(range(62, 70))
    assert Attribution.unpack(clicks, recoveries).pack() == attribution.pack()
