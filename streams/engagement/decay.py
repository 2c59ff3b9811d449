"""Exponentially decayed sums that are exact in integers, so that no order of events can change them.

Time is cut into windows of 16 half-lives. An amount counts 2^((t mod window) / half-life) times its weight, in units of
2^-20, in the window it falls into; only the newest window with an amount and the one before it are kept. Reading scales
both back.
"""

from typing import Any, Final

HOUR_MS: Final = 3_600_000
WINDOW_HALF_LIVES: Final = 16
UNITS: Final = 1 << 20
_INTEGER_END: Final = 1 << 63


class DecayedSum:
    """One channel's sum.

    half_life_ms: whole hours; window: number of the newest window; current, previous: amounts in it and the one before.
    """

    __slots__ = ("current", "half_life_ms", "previous", "window")

    def __init__(self, half_life_ms: int, window: int = -2, current: int = 0, previous: int = 0) -> None:
        self.half_life_ms = half_life_ms
        self.window = window
        self.current = current
        self.previous = previous

    def add(self, occurred_at_ms: int, weight: float) -> None:
        """Add a weight; one that is older than the previous window is dropped.

        >>> week = 7 * 86_400_000
        >>> total = DecayedSum(week)
        >>> total.add(week, 10); total.add(0, 10)
        >>> total.value(week)
        15.0
        """
        half_life_ms = self.half_life_ms
        window, into_ms = divmod(occurred_at_ms, WINDOW_HALF_LIVES * half_life_ms)
        amount = round(weight * UNITS * 2.0 ** (into_ms / half_life_ms))
        if window == self.window:
            self.current += amount
        elif window > self.window:
            self.previous = self.current if window == self.window + 1 else 0
            self.current = amount
            self.window = window
        elif window == self.window - 1:
            self.previous += amount

    def pack(self) -> list[int | str]:
        """Canonical: [half-life in hours, window, current, previous]; an amount beyond 64 bits as decimal digits."""
        hours, current, previous = self.half_life_ms // HOUR_MS, self.current, self.previous
        if -_INTEGER_END <= current < _INTEGER_END and -_INTEGER_END <= previous < _INTEGER_END:
            return [hours, self.window, current, previous]
        return [hours, self.window, _packable(current), _packable(previous)]

    @classmethod
    def unpack(cls, packed: list[Any]) -> "DecayedSum":
        """The sum that was packed."""
        hours, window, current, previous = packed
        return cls(hours * HOUR_MS, window, int(current), int(previous))

    def move(self, weight: float, from_ms: int, to_ms: int) -> None:
        """Take back a weight added at `from_ms` and add it at `to_ms` instead."""
        self.add(from_ms, -weight)
        self.add(to_ms, weight)

    def value(self, at_ms: int) -> float:
        """The sum as of `at_ms`, in points."""
        half_life_ms = self.half_life_ms
        start_ms = WINDOW_HALF_LIVES * half_life_ms * self.window
        value: float = self.current / UNITS * 2.0 ** ((start_ms - at_ms) / half_life_ms)
        if self.previous:
            start_ms -= WINDOW_HALF_LIVES * half_life_ms
            value += self.previous / UNITS * 2.0 ** ((start_ms - at_ms) / half_life_ms)
        return value


def _packable(amount: int) -> int | str:
    return amount if -_INTEGER_END <= amount < _INTEGER_END else str(amount)
