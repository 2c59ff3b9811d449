"""Decayed sums: the contract's vectors, and what makes them exact."""

import itertools

import pytest

from streams.engagement import snapshot
from streams.engagement.decay import UNITS, DecayedSum

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS


@pytest.mark.parametrize(("age_ms", "points"), [(0, 10.0), (WEEK_MS, 5.0), (2 * WEEK_MS, 2.5)])
def test_a_weight_halves_every_half_life(age_ms: int, points: float) -> None:
    """10 points are 5 after one half-life and 2.5 after two."""
    total = DecayedSum(WEEK_MS)
    total.add(0, 10)
    assert total.value(age_ms) == points


@pytest.mark.parametrize("times", list(itertools.permutations([0, WEEK_MS])))
def test_the_order_of_two_events_does_not_matter(times: tuple[int, int]) -> None:
    """10 at day 0 and 10 at day 7, read at day 7, are 15 in either order."""
    total = DecayedSum(WEEK_MS)
    for time_ms in times:
        total.add(time_ms, 10)
    assert total.value(WEEK_MS) == 15.0


def test_an_amount_is_an_integer_scaled_within_its_window() -> None:
    """The contract's formula: round(w x 2^20 x 2^((t mod 16h)/h))."""
    total = DecayedSum(WEEK_MS)
    total.add(16 * WEEK_MS + DAY_MS, 3)
    assert (total.window, total.current, total.previous) == (1, round(3 * 2**20 * 2 ** (1 / 7)), 0)


@pytest.mark.parametrize("times", list(itertools.permutations([DAY_MS, 17 * WEEK_MS, 18 * WEEK_MS])))
def test_the_previous_window_is_kept_and_takes_late_events(times: tuple[int, ...]) -> None:
    """Windows J and J - 1 hold their events, whichever came first."""
    total = DecayedSum(WEEK_MS)
    for time_ms in times:
        total.add(time_ms, 1)
    assert (total.window, total.current) == (1, UNITS * 2 + UNITS * 4)
    assert total.previous == round(UNITS * 2 ** (1 / 7))
    assert total.value(17 * WEEK_MS) == pytest.approx(1 + 2 + 2 ** (1 / 7 - 17))


@pytest.mark.parametrize("times", list(itertools.permutations([DAY_MS, 40 * WEEK_MS])))
def test_what_is_older_than_the_previous_window_is_gone(times: tuple[int, ...]) -> None:
    """A jump of more than one window empties the previous one, and later it drops what is late."""
    total = DecayedSum(WEEK_MS)
    for time_ms in times:
        total.add(time_ms, 1)
    assert (total.window, total.previous) == (2, 0)


def test_a_moved_weight_leaves_nothing_behind() -> None:
    """A weight moved to an earlier time is the same as one added there at once."""
    moved, direct = DecayedSum(WEEK_MS), DecayedSum(WEEK_MS)
    moved.add(5 * DAY_MS, 20)
    moved.move(20, 5 * DAY_MS, 4 * DAY_MS)
    direct.add(4 * DAY_MS, 20)
    assert moved.pack() == direct.pack()


@pytest.mark.parametrize("amount", [0, -5, 2**62, 2**63, -(2**63) - 1, 2**80])
def test_packing_keeps_any_amount(amount: int) -> None:
    """Amounts beyond 64 bits, which MessagePack has no integer for, survive too."""
    packed = DecayedSum(2 * DAY_MS, 7, amount, -1).pack()
    assert snapshot.unpack(snapshot.pack(packed)) == packed
    unpacked = DecayedSum.unpack(packed)
    assert (unpacked.half_life_ms, unpacked.window, unpacked.current, unpacked.previous) == (2 * DAY_MS, 7, amount, -1)


@pytest.mark.parametrize("amount", [2**63 - 1, -(2**63)])
def test_an_amount_that_fits_stays_an_integer(amount: int) -> None:
    """Beside one that does not fit as well: equal sums have one form alone."""
    assert DecayedSum(2 * DAY_MS, 7, amount, 2**63).pack() == [48, 7, amount, str(2**63)]
    assert DecayedSum(2 * DAY_MS, 7, -(2**63) - 1, amount).pack() == [48, 7, str(-(2**63) - 1), amount]
