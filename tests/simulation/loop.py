"""An event loop whose time stands still, and gates at which coroutines wait until they are let on."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVarTuple

Args = TypeVarTuple("Args")

PROCESS: ContextVar["Gates | None"] = ContextVar("process", default=None)
"""The gates of the process that the running coroutine belongs to."""


class Turn(asyncio.TimerHandle):
    """A callback whose time has come. It runs as it stands, so that an error of the stage itself ends the run."""

    __slots__ = ("act", "args", "within")

    def __init__(self, act: Callable[..., object], args: tuple[Any, ...], within: Context) -> None:
        self.act, self.args, self.within = act, args, within
        self._cancelled, self._source_traceback = False, None

    def cancel(self) -> None:
        self._cancelled = True


class StillLoop(asyncio.BaseEventLoop):
    """A loop in which nothing happens by itself: time moves when told, and `settle` runs until all of it waits.

    It knows no sockets, threads or signals, so it asks the system for nothing: most of a run would go there. What a
    frozen process would do waits with its gates.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._turns: deque[Turn] = deque()
        self._timers: list[tuple[float, int, Turn]] = []
        self._numbers = count()

    def time(self) -> float:
        """The loop's own time in seconds; sleeps and timeouts count in it."""
        return self.now_s

    def call_soon(self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None) -> Turn:
        turn = Turn(callback, args, copy_context() if context is None else context)
        self._turns.append(turn)
        return turn

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> Turn:
        turn = Turn(callback, args, copy_context() if context is None else context)
        heappush(self._timers, (when, next(self._numbers), turn))
        return turn

    def settle(self) -> None:
        """Run until every coroutine waits for a gate, or for time."""
        turns, timers = self._turns, self._timers
        asyncio._set_running_loop(self)
        try:
            while True:
                while timers and timers[0][0] <= self.now_s:
                    turns.append(heappop(timers)[2])
                if not turns:
                    return
                for _ in range(len(turns)):
                    turn = turns.popleft()
                    gates = turn.within.get(PROCESS)
                    if gates is not None and gates.frozen:
                        gates.put_off.append(turn)
                    elif not turn._cancelled:
                        turn.within.run(turn.act, *turn.args)
        finally:
            asyncio._set_running_loop(None)

    def thaw(self, gates: "Gates") -> None:
        """Let a frozen process go on where it was stopped."""
        gates.frozen = False
        self._turns.extend(gates.put_off)
        gates.put_off.clear()

    def shut(self) -> None:
        """End what still runs, and close."""
        if self.is_closed():
            return
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.settle()
        self.close()


@dataclass(slots=True)
class Waiting:
    """A coroutine held at a gate."""

    name: str
    let_on: asyncio.Future[None]


@dataclass
class Gates:
    """The gates of one process. held: names at which a coroutine waits; the others are open.

    A dead process passes none of them any more: whatever it was about to do, it does not do. A frozen one does nothing
    until it is thawed.
    """

    held: frozenset[str] = frozenset()
    dead: bool = False
    frozen: bool = False
    put_off: list[Turn] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    stored_positions: dict[str, int] = field(default_factory=dict)
    """Per topic, how far the state goes that this process knows to be stored."""

    async def pass_(self, name: str) -> None:
        """Wait to be let on, where the gate is held."""
        if self.dead:
            raise asyncio.CancelledError
        if name not in self.held:
            return
        here = Waiting(name, asyncio.get_running_loop().create_future())
        self.waiting.append(here)
        try:
            await here.let_on
        finally:
            self.waiting.remove(here)
        if self.dead:
            raise asyncio.CancelledError

    def let(self, name: str, error: Exception | None = None) -> bool:
        """Let the first that waits at a gate go on, or fail there; False where none waits."""
        found = next((here for here in self.waiting if here.name == name and not here.let_on.done()), None)
        if found is None:
            return False
        if error is None:
            found.let_on.set_result(None)
        else:
            found.let_on.set_exception(error)
        return True

    def open(self) -> None:
        """Hold nothing any more."""
        self.held = frozenset()
        for here in list(self.waiting):
            if not here.let_on.done():
                here.let_on.set_result(None)

    def kill(self) -> None:
        """The process dies: none of its coroutines does anything more."""
        self.dead = True
        for here in list(self.waiting):
            here.let_on.cancel()
