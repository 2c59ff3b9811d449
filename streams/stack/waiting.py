"""Waiting that tells what it waits for, and the error of a stack that cannot be brought up."""

import time
from collections.abc import Callable

from streams.errors import PulselineError

Say = Callable[[str], None]

QUIET_S = 2.0
REPEAT_S = 5.0
POLL_S = 0.05


class StackProblem(PulselineError):
    """The local stack cannot be brought up; the message says what is missing and how to get it."""


def silent(_message: str) -> None:
    """Say nothing."""


class Patience:
    """Tells what is waited for once that has taken 2 s, and again each 5 s."""

    def __init__(self, what: str, say: Say) -> None:
        self._what = what
        self._say = say
        self._begun = time.monotonic()
        self._next = QUIET_S

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._begun

    def tick(self) -> None:
        """Call often; speaks when it is time."""
        waited_s = self.waited_s
        if waited_s >= self._next:
            self._say(f"waiting for {self._what} ({waited_s:.0f} s)")
            self._next = waited_s + REPEAT_S


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    timeout_s: float,
    say: Say = silent,
    check: Callable[[], None] | None = None,
) -> None:
    """Return once `ready()` is true; `check` may raise where waiting on is pointless.

    Raises StackProblem after `timeout_s` seconds.
    """
    patience = Patience(what, say)
    while not ready():
        if check is not None:
            check()
        if patience.waited_s > timeout_s:
            raise StackProblem(f"gave up waiting for {what} after {timeout_s:.0f} s")
        patience.tick()
        time.sleep(POLL_S)
