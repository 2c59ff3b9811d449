"""Whether a worker does its work: every task it owns is claimed and commits, and Kafka and Redis answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from faust.exceptions import ConsumerNotStarted

from streams.errors import PulselineError

if TYPE_CHECKING:
    from streams.processing.processor import Processor

PROBE_TIMEOUT_S = 2.0
COMMIT_AGE_MIN_MS = 10_000


class Readiness:
    """The reasons why a worker is not ready, asked for by health checks.

    owned: the tasks assigned to this worker; opened: those whose records flow; failed: why it stops, if it does.
    """

    def __init__(
        self,
        processor: "Processor",
        *,
        owned: Callable[[], frozenset[int]],
        opened: Callable[[], frozenset[int]],
        failed: Callable[[], Exception | None],
    ) -> None:
        self.processor, self.owned, self.opened, self.failed = processor, owned, opened, failed

    @property
    def commit_age_max_ms(self) -> int:
        """How long ago the last commit, or the look at whose a task is that replaces it, may lie."""
        return max(COMMIT_AGE_MIN_MS, 10 * self.processor.plan.commit_interval_ms)

    async def reasons(self) -> list[str]:
        """Why the worker is not ready, in words; none where it is. Takes PROBE_TIMEOUT_S at most."""
        found = await asyncio.gather(
            self._answers("Kafka", self.processor.log.confirmed), self._answers("Redis", self._ask_store)
        )
        return [*self.unwell(), *(reason for reason in found if reason), *self._tasks_behind()]

    def unwell(self) -> list[str]:
        """Why the worker cannot get well by itself; none where it can."""
        error = self.failed()
        return [] if error is None else [f"the worker stops: {type(error).__name__}"]

    def _tasks_behind(self) -> list[str]:
        processor = self.processor
        owned, now_ms = self.owned(), processor.clock.monotonic_ms()
        waiting = sorted(owned - self.opened())
        ages = {task: now_ms - processor.settled[task] for task in owned if task in processor.settled}
        stuck = sorted(task for task, age_ms in ages.items() if age_ms > self.commit_age_max_ms and task not in waiting)
        reasons = [f"tasks {waiting} are not claimed yet"] if waiting else []
        if stuck:
            oldest_ms = max(ages[task] for task in stuck)
            reasons.append(f"tasks {stuck} committed nothing for up to {oldest_ms} ms")
        return reasons

    async def _ask_store(self) -> None:
        await self.processor.store.ver(min(self.owned(), default=0))

    @staticmethod
    async def _answers(who: str, ask: Callable[[], Awaitable[Any]]) -> str | None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await ask()
        except TimeoutError:
            return f"{who} does not answer"
        except ConsumerNotStarted:
            return f"{who} is not connected yet"
        except PulselineError as error:
            return f"{who}: {error}"
        return None
