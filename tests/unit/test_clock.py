"""The clocks: when the wall clock may be trusted, and what the system's tell."""

from streams.processing.clock import SystemClock
from streams.processing.punctuation import ClockGuard
from tests.support.world import ManualClock


def test_a_wall_clock_that_jumps_is_distrusted_for_a_minute() -> None:
    """More than two seconds against the monotonic clock, in either direction."""
    clock = ManualClock()
    guard = ClockGuard(clock)
    assert guard.trusted()
    clock.now_ms += 2_001
    assert not guard.trusted()
    clock.advance(59_999)
    assert not guard.trusted()
    clock.advance(1)
    assert guard.trusted()
    clock.now_ms -= 1_999
    assert guard.trusted()


def test_the_system_clock_tells_ms() -> None:
    """Both run on; wall time is after 2023."""
    clock = SystemClock()
    assert clock.wall_ms() > 1_700_000_000_000
    assert clock.monotonic_ms() <= clock.monotonic_ms()
