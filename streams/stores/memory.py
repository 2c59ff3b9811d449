"""MemoryStore: the state of all tasks in this process, with a past to fail over to and faults on order."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from streams.errors import Fenced, StoreUnavailable
from streams.processing.ports import Accumulated, Commit, Stored
from streams.stores.deployment import SCHEMA_FIELD, settled

PAGE = 10_000
KEPT_MS = 60_000
Fault = Literal["unavailable", "unknown", "before", "reply_lost"]
Operation = Literal[
    "check",
    "deployment",
    "read",
    "claim",
    "load",
    "timers",
    "sessions",
    "commit",
    "ver",
    "accumulators",
    "published",
    "published_field",
    "write_published",
]
_Change = tuple[dict[Any, Any], Any, Any]  # where, key, value (None removes)
_Entry = tuple[int, int, tuple[str, ...]]  # number since the claim, epoch ms, changed accumulators


@dataclass(slots=True)
class _Task:
    """One task as stored; `main` holds ver, meta and outputs, so that an empty one means no state."""

    main: dict[str, Any] = field(default_factory=dict)
    hot: dict[str, bytes] = field(default_factory=dict)
    cold: dict[str, bytes] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    accumulators: dict[str, int] = field(default_factory=dict)
    trail: dict[str, _Entry] = field(default_factory=dict)

    def parts(self) -> tuple[dict[str, Any], ...]:
        return self.main, self.hot, self.cold, self.timers, self.sessions, self.accumulators, self.trail


class MemoryStore:
    """StateStore in memory, for tests and simulations: what RedisStore promises, and a hand on what can go wrong.

    effects: what was done, in order: ("commit", partition, base, new), ("claim", partition, old, new),
    ("fenced", partition, found, expected), ("write_published", changed fields), ("fail_over", lost writes), ("wipe",);
    pass a list to share it with other fakes.
    on_step: awaited with ("before", operation, partition) ahead of each operation and with ("after", ...) behind each
    write; what it raises goes to the caller.
    history_max: how many writes `fail_over` can go back.
    """

    def __init__(
        self,
        *,
        effects: list[tuple[Any, ...]] | None = None,
        on_step: Callable[[str, Operation, int], Awaitable[None]] | None = None,
        history_max: int = 10_000,
    ) -> None:
        self.effects: list[tuple[Any, ...]] = [] if effects is None else effects
        self.on_step = on_step
        self._tasks: dict[int, _Task] = {}
        self._deployment: dict[str, str] = {}
        self._published: dict[str, bytes] = {}
        self._undo: deque[list[_Change]] = deque(maxlen=history_max)
        self._faults: list[tuple[Fault, Operation | None, Callable[[], None] | None]] = []

    # --- what can go wrong

    @property
    def writes(self) -> int:
        """How many writes `fail_over` could undo now."""
        return len(self._undo)

    def fail_over(self, lost: int) -> None:
        """Go back to before the last `lost` writes of all tasks, as a replica that lagged by them would."""
        for _ in range(min(lost, len(self._undo))):
            for mapping, key, old in reversed(self._undo.pop()):
                _put(mapping, key, old)
        self.effects.append(("fail_over", lost))

    def wipe(self) -> None:
        """Lose everything, the past included."""
        self._tasks.clear()
        self._deployment.clear()
        self._published.clear()
        self._undo.clear()
        self.effects.append(("wipe",))

    def fail_next(
        self, kind: Fault, *, operation: Operation | None = None, then: Callable[[], None] | None = None
    ) -> None:
        """Let the next operation (the next of that name) go wrong once; may be ordered several times.

        unavailable: nothing is done, StoreUnavailable. unknown: done, yet StoreUnavailable. before: the connection
        breaks before the write. reply_lost: it breaks after it. In these two `then` runs (a failover, say),
        and the outcome is resolved as RedisStore does. A read fails as `unavailable`, whatever the kind.
        """
        self._faults.append((kind, operation, then))

    def _fault(self, operation: Operation) -> tuple[Fault | None, Callable[[], None] | None]:
        for place, (kind, wanted, then) in enumerate(self._faults):
            if wanted in (None, operation):
                del self._faults[place]
                return kind, then
        return None, None

    async def _step(self, when: str, operation: Operation, partition: int) -> None:
        if self.on_step is not None:
            await self.on_step(when, operation, partition)

    async def _reading(self, operation: Operation, partition: int = -1) -> None:
        await self._step("before", operation, partition)
        if self._fault(operation)[0] is not None:
            raise StoreUnavailable(f"{operation} failed as ordered")

    async def _writing(self, operation: Operation, partition: int, attempt: Callable[[], None]) -> None:
        """Attempt a write, twice where its connection breaks: an attempt does nothing where the one before was done."""
        await self._step("before", operation, partition)
        fault, then = self._fault(operation)
        if fault == "unavailable":
            raise StoreUnavailable(f"{operation} failed as ordered")
        if fault != "before":
            attempt()
        if fault == "unknown":
            raise StoreUnavailable(f"{operation} was done, but its outcome stays unknown, as ordered")
        if fault in ("before", "reply_lost"):
            if then is not None:
                then()
            attempt()
        await self._step("after", operation, partition)

    # --- the port

    async def check(self) -> None:
        await self._reading("check")

    async def deployment(self, wanted: Mapping[str, str]) -> int:
        def attempt() -> None:
            now = settled(self._deployment, wanted)
            if self._deployment != now:
                self._write((self._deployment, name, value) for name, value in now.items())

        await self._writing("deployment", -1, attempt)
        return int(self._deployment[SCHEMA_FIELD])

    async def read(self, partition: int) -> Stored | None:
        await self._reading("read", partition)
        main = self._task(partition).main
        return Stored(main["ver"], main["meta"]) if main else None

    async def ver(self, partition: int) -> str | None:
        await self._reading("ver", partition)
        return self._ver(partition)

    async def claim(self, partition: int, new: str) -> Stored:
        before = ""
        task = self._task(partition)

        def attempt() -> None:
            nonlocal before, task
            task = self._task(partition)
            found = self._ver(partition)
            if found is None:
                self.effects.append(("fenced", partition, None, None))
                raise Fenced(f"task {partition}: its state is gone, there is nothing to claim")
            if found == new:
                return
            before = found
            gone = [(task.trail, ver, None) for ver in task.trail]
            self._write([*gone, (task.trail, new, (0, 0, ())), (task.main, "ver", new)])
            self.effects.append(("claim", partition, before, new))

        await self._writing("claim", partition, attempt)
        timers, sessions = _page(task.timers), _page(task.sessions)
        return Stored(
            ver=before,
            meta=task.main["meta"],
            timers=timers,
            sessions=sessions,
            timers_complete=len(timers) < PAGE,
            sessions_complete=len(sessions) < PAGE,
            outputs=task.main["outputs"],
            accumulators=dict(task.accumulators),
        )

    async def load(
        self, partition: int, vers: Collection[str], customers: Sequence[str]
    ) -> dict[str, tuple[bytes | None, bytes | None]]:
        await self._reading("load", partition)
        task = self._guarded(partition, vers)
        return {customer: (task.hot.get(customer), task.cold.get(customer)) for customer in customers}

    async def timers(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        await self._reading("timers", partition)
        return _page(self._guarded(partition, vers).timers, after_ms, until_ms, limit)

    async def sessions(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        await self._reading("sessions", partition)
        return _page(self._guarded(partition, vers).sessions, after_ms, until_ms, limit)

    async def commit(self, commit: Commit) -> None:
        def attempt() -> None:
            found = self._ver(commit.partition)
            if found == commit.new:
                return
            if found != commit.base:
                raise self._fenced(commit.partition, {str(commit.base)})
            self._write(_changes(self._task(commit.partition), commit))
            self.effects.append(("commit", commit.partition, commit.base, commit.new))

        await self._writing("commit", commit.partition, attempt)

    async def accumulators(self, partition: int) -> dict[str, int]:
        await self._reading("accumulators", partition)
        return dict(self._task(partition).accumulators)

    async def accumulators_changed(self, partition: int, since: str | None) -> Accumulated:
        await self._reading("accumulators", partition)
        task, ver = self._task(partition), self._ver(partition)
        if since is None or since not in task.trail:
            return Accumulated(ver, {**task.accumulators}, whole=True)
        known = task.trail[since][0]
        names = {name for number, _, fields in task.trail.values() if number > known for name in fields}
        return Accumulated(ver, {name: task.accumulators.get(name) for name in names}, whole=False)

    async def published_field(self, field: str) -> bytes | None:
        await self._reading("published_field", 0)
        return self._published.get(field)

    async def published(self) -> dict[str, bytes]:
        await self._reading("published", 0)
        return dict(self._published)

    async def write_published(self, vers: Collection[str], changes: Mapping[str, bytes | None]) -> None:
        def attempt() -> None:
            self._guarded(0, vers)
            self._write((self._published, name, value) for name, value in changes.items())
            self.effects.append(("write_published", sorted(changes)))

        if changes:
            await self._writing("write_published", 0, attempt)

    async def close(self) -> None:
        """Nothing to release: the state stays, as Redis' would."""

    # --- inside

    def _task(self, partition: int) -> _Task:
        found = self._tasks.get(partition)
        if found is None:
            found = self._tasks[partition] = _Task()
        return found

    def _ver(self, partition: int) -> str | None:
        ver: str | None = self._task(partition).main.get("ver")
        return ver

    def _guarded(self, partition: int, vers: Collection[str]) -> _Task:
        if self._ver(partition) not in vers:
            raise self._fenced(partition, vers)
        return self._task(partition)

    def _fenced(self, partition: int, expected: Collection[str]) -> Fenced:
        found = self._ver(partition)
        self.effects.append(("fenced", partition, found, tuple(expected)))
        return Fenced(f"task {partition}: found commit {found} where {' or '.join(expected)} was expected")

    def _write(self, changes: Iterable[_Change]) -> None:
        """Put values (None removes) at once, keeping what undoes them."""
        undo = []
        for mapping, key, value in changes:
            undo.append((mapping, key, mapping.get(key)))
            _put(mapping, key, value)
        self._undo.append(undo)


def _put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _changes(task: _Task, commit: Commit) -> list[_Change]:
    """What a commit puts where; a first start clears leftovers."""
    changes: list[_Change] = []
    if commit.base is None:
        changes.extend((part, key, None) for part in task.parts() for key in part)
    for part, values in (
        (task.main, {"ver": commit.new, "meta": commit.meta, "outputs": commit.outputs}),
        (task.hot, commit.hot),
        (task.cold, commit.cold),
        (task.timers, commit.timers),
        (task.sessions, commit.sessions),
        (task.accumulators, commit.accumulators),
    ):
        changes.extend((part, key, value) for key, value in values.items())
    changes.extend(_trail_changes(task.trail, commit))
    return changes


def _trail_changes(trail: dict[str, _Entry], commit: Commit) -> Iterator[_Change]:
    """Enter the commit; what came more than a minute ago goes, and with it the entry before."""
    vers = [] if commit.base is None else sorted(trail, key=lambda ver: trail[ver][0])
    for ver, following in pairwise(vers):
        if trail[following][1] >= commit.now_ms - KEPT_MS:
            break
        yield trail, ver, None
    number = trail[vers[-1]][0] + 1 if vers else 1
    yield trail, commit.new, (number, commit.now_ms, tuple(commit.accumulators))


def _page(
    deadlines: Mapping[str, int], after_ms: int = 0, until_ms: int = 1 << 62, limit: int = PAGE
) -> list[tuple[str, int]]:
    """The earliest deadlines of a span, in the order of Redis' sorted sets."""
    within = [(due, customer.encode(), customer) for customer, due in deadlines.items() if after_ms <= due <= until_ms]
    return [(customer, due) for due, _, customer in sorted(within)[:limit]]
