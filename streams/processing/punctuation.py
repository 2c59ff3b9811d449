"""Silent time as records in the log: when the owner of a task appends a watermark."""

import logging
from dataclasses import dataclass, field

from streams.errors import LogUnavailable
from streams.processing.plan import Plan
from streams.processing.ports import Clock, Log
from streams.processing.task import Task

logger = logging.getLogger(__name__)

CART_EVERY_MS, SESSION_EVERY_MS, SESSION_OVERDUE_MS = 1_000, 60_000, 60_000
IN_FLIGHT_MS = 10_000
CLOCK_JUMP_MS, DISTRUST_MS = 2_000, 60_000


@dataclass(slots=True)
class ClockGuard:
    """Distrusts a wall clock for 60 s after it moved by more than 2 s against the monotonic one."""

    clock: Clock
    _offset_ms: int | None = None
    _distrusted_until_ms: int = 0

    def trusted(self) -> bool:
        """Whether the wall clock may be written into the log now."""
        wall, monotonic = self.clock.wall_ms(), self.clock.monotonic_ms()
        offset, before = wall - monotonic, self._offset_ms
        self._offset_ms = offset
        if before is not None and abs(offset - before) > CLOCK_JUMP_MS:
            self._distrusted_until_ms = monotonic + DISTRUST_MS
            logger.warning(
                "the wall clock moved by %d ms: no punctuation for %d s", offset - before, DISTRUST_MS // 1_000
            )
        return monotonic >= self._distrusted_until_ms


@dataclass(slots=True)
class Punctuator:
    """Writes watermark records for topics whose silence holds time back; whoever writes one, it is harmless."""

    log: Log
    clock: Clock
    plan: Plan
    guard: ClockGuard = field(init=False)
    _written: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """(partition, topic) -> (monotonic ms, control records applied then) of the last one written."""

    def __post_init__(self) -> None:
        self.guard = ClockGuard(self.clock)

    def forget(self, partition: int) -> None:
        """Forget what was written for a task that is no longer ours."""
        for key in [key for key in self._written if key[0] == partition]:
            del self._written[key]

    async def maybe(self, task: Task) -> None:
        """Append a watermark where it would release something that is due and everything before it was applied."""
        if not self.plan.punctuation or not self.guard.trusted():
            return
        watermark = self.clock.wall_ms() - self.plan.lateness_ms
        for topic, every_ms in self._held_back(task, watermark):
            if self._may_write(task, topic, every_ms, watermark):
                await self._write(task, topic, watermark)

    def _held_back(self, task: Task, watermark: int) -> list[tuple[str, int]]:
        """Topics whose silence keeps a due timer, a waiting event or an overdue session from being released."""
        cart, click = self.plan.cart_topic, self.plan.clickstream_topic
        held: dict[str, int] = {}
        session = task.sessions.next_ms()
        if session is not None and session + SESSION_OVERDUE_MS < watermark:
            held = {
                topic: SESSION_EVERY_MS for topic in (cart, click) if task.book.topics[topic].watermark_ms <= session
            }
        due = task.timers.next_ms()
        if due is not None and due < watermark:
            held[cart] = CART_EVERY_MS
        return list(held.items())

    def _may_write(self, task: Task, topic: str, every_ms: int, watermark: int) -> bool:
        book = task.book.topics[topic]
        if watermark <= book.watermark_ms or not self.log.caught_up(topic, task.partition, book.position):
            return False
        last = self._written.get((task.partition, topic))
        if last is None:
            return True
        elapsed = self.clock.monotonic_ms() - last[0]
        in_flight = book.control == last[1] and elapsed < IN_FLIGHT_MS
        return elapsed >= every_ms and not in_flight

    async def _write(self, task: Task, topic: str, watermark: int) -> None:
        self._written[task.partition, topic] = (self.clock.monotonic_ms(), task.book.topics[topic].control)
        try:
            await self.log.punctuate(topic, task.partition, watermark)
        except LogUnavailable as error:
            logger.warning("no punctuation for task %d: %s", task.partition, error)
