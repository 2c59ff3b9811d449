"""An event loop whose time stands still, and gates at which coroutines wait until they are let on."""

import asyncio
from dataclasses import dataclass, field


class StillLoop(asyncio.SelectorEventLoop):
    """A loop in which nothing happens by itself: time moves when told, and `settle` runs until all of it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        """The loop's own time in seconds; sleeps and timeouts count in it."""
        return self.now_s

    def settle(self) -> None:
        """Run until every coroutine waits for a gate, or for time."""

        def probe() -> None:
            scheduled = self._scheduled  # type: ignore[attr-defined]
            if self._ready or (scheduled and scheduled[0].when() <= self.now_s):  # type: ignore[attr-defined]
                self.call_soon(probe)
            else:
                self.stop()

        self.call_soon(probe)
        self.run_forever()

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

    A dead process passes none of them any more: whatever it was about to do, it does not do.
    """

    held: frozenset[str] = frozenset()
    dead: bool = False
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
