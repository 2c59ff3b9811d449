"""Which accumulators changed in the last minute, so that the metrics publisher need not read all of them each time."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from streams.processing.ports import Commit
from streams.stores.keys import TaskKeys
from streams.stores.wire import Command

KEPT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit adds to the trail."""

    number: int
    ver: str
    at_ms: int
    fields: tuple[str, ...]
    commands: list[Command]
    trimmed: int


class Trail:
    """The chain of commits since this worker's claim, newest minute.

    Stored as the hash `ad`: v:<ver> -> number, f:<accumulator> -> number of the commit that changed it last. A claim
    begins it anew, so a reader that finds the ver of its last read here knows that every later change is here too.
    """

    def __init__(self, keys: TaskKeys, ver: str | None) -> None:
        self._key = keys.changed
        self.ver = self._begun = ver
        self._number = 0
        self._steps: deque[Step] = deque()
        self._last: dict[str, int] = {}

    def begin(self) -> list[Command]:
        """Commands that put a new trail in the place of the old one."""
        commands: list[Command] = [("UNLINK", self._key)]
        if self.ver is not None:
            commands.append(("HSET", self._key, f"v:{self.ver}", 0))
        return commands

    def step(self, commit: Commit) -> Step:
        """The step of a commit; nothing changes here until `advance`."""
        number = self._number + 1
        fields = tuple(commit.accumulators)
        written: list[str | int] = [f"v:{commit.new}", number]
        for name in fields:
            written += (f"f:{name}", number)
        old = list(takewhile(lambda step: step.at_ms < commit.now_ms - KEPT_MS, self._steps))
        commands: list[Command] = [("HSET", self._key, *written)]
        if old:
            commands.append(("HDEL", self._key, *self._trimmed(old, frozenset(fields))))
        return Step(number, commit.new, commit.now_ms, fields, commands, trimmed=len(old))

    def _trimmed(self, old: list[Step], kept: frozenset[str]) -> list[str]:
        """Entries of the oldest steps, except what a later one wrote again; the claim's own is the oldest."""
        names = [] if self._begun is None else [f"v:{self._begun}"]
        for step in old:
            names.append(f"v:{step.ver}")
            names.extend(f"f:{name}" for name in step.fields if name not in kept and self._last[name] == step.number)
        return names

    def advance(self, step: Step) -> None:
        """Note that the commit of this step was done."""
        for _ in range(step.trimmed):
            gone = self._steps.popleft()
            for name in gone.fields:
                if self._last[name] == gone.number:
                    del self._last[name]
        self._steps.append(step)
        self._last.update(dict.fromkeys(step.fields, step.number))
        self.ver, self._number = step.ver, step.number


def changed_since(entries: Iterable[tuple[bytes, bytes]], since: str) -> list[str] | None:
    """Accumulators changed after the commit `since`; None where the trail does not reach back to it."""
    numbers = {name.decode(): int(number) for name, number in entries}
    known = numbers.get(f"v:{since}")
    if known is None:
        return None
    return [name[2:] for name, number in numbers.items() if name.startswith("f:") and number > known]
