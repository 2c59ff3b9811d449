"""Everything that can go wrong with the workers of one task, at random from one seed, in memory."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from streams.errors import Retriable
from streams.producer.plan import Planned
from tests.support.history import load, unread
from tests.support.world import Worker, World

DEATHS = ("rejected", "exec", "publish", "publish", "publish", "offsets", "now")
"""Steps of a commit before which a worker dies."""
CHUNK_RECORDS_MAX = 300
BEHIND_MAX_MS = 12 * 3_600_000
FAIL_OVER_DEPTH_MAX = 4


class Died(Exception):
    """A worker died here."""


class Storm:
    """Plays records to a worker while it is killed, frozen and fenced; `happened` counts what befell it.

    The records arrive in chunks at the time at which they were sent, so silent times are punctuated as in earnest.
    """

    def __init__(self, world: World, records: Sequence[Planned], seed: int) -> None:
        self.world, self.rng = world, Random(seed)
        self.records, self.loaded = records, 0
        self.happened: Counter[str] = Counter()
        self.workers: list[Worker] = []
        self.zombies: list[Worker] = []

    async def play(self) -> Worker:
        """Play to the end, let everything heal, and return the worker that is left."""
        self.world.clock.now_ms = self.records[0].send_ms
        await self._replace()
        self.first_writes = self.world.store.writes
        while self.loaded < len(self.records) or unread(self.world, self.worker):
            await self._read()
            await self._befall()
            await self._claim()
        await self._heal()
        for worker in self.workers:
            await worker.processor.stop()
        return self.worker

    @property
    def worker(self) -> Worker:
        """The owner of the task."""
        return self.workers[-1]

    async def _replace(self) -> None:
        self.workers.append(self.world.worker())
        await self._claim()

    async def _claim(self) -> None:
        """As the transport does: again and again, until it succeeds."""
        while self.worker.processor.claim_of(0) is None:
            with suppress(Retriable):
                await self.world.claim(self.worker)

    def _behind_ms(self) -> int:
        """How long ago the oldest record was sent that is not fetched yet.

        Bounded, as who was active when is exact only where no topic falls more than 40 hours behind another.
        """
        inputs, now_ms = self.world.broker.inputs, self.world.clock.now_ms
        oldest = [
            inputs[topic, 0][at].timestamp for topic, at in self.worker.fetch_from.items() if at < len(inputs[topic, 0])
        ]
        return now_ms - min(oldest, default=now_ms)

    def _arrive(self) -> None:
        """Let the next records arrive; the clock goes along."""
        count = self.rng.randint(1, CHUNK_RECORDS_MAX)
        chunk = self.records[self.loaded : self.loaded + count]
        self.loaded += load(self.world, chunk)
        if chunk:
            self.world.clock.advance(max(0, chunk[-1].send_ms - self.world.clock.now_ms))

    async def _read(self) -> None:
        rng, topics = self.rng, list(self.world.plan.inputs)
        if rng.random() < 0.5 and self._behind_ms() < BEHIND_MAX_MS:
            self._arrive()
        await self.world.poll(self.worker, limit=rng.randint(1, 300), topics=(rng.choice(topics),))
        if rng.random() < 0.3:
            await self.worker.processor.tick(0)

    async def _befall(self) -> None:
        """At most one of the evils, and what the frozen ones do who woke up."""
        chance = self.rng.random()
        if chance < 0.16:
            await self._kill()
        elif chance < 0.22:
            await self._freeze()
        elif chance < 0.28:
            self._fail_over()
        elif chance < 0.31:
            self.happened["outcome of a commit unknown"] += 1
            self.world.store.fail_next(self.rng.choice(("reply_lost", "before", "unknown")), operation="commit")
        elif chance < 0.33:
            self.happened["half published"] += 1
            self.worker.log.fail_next.append("publish")
        await self._wake()

    async def _kill(self) -> None:
        """Kill -9, at once or inside the next commit; another worker takes over."""
        step = self.rng.choice(DEATHS)
        dying = self.worker
        if step != "now":
            await self.world.poll(dying, limit=100)
            await self._die_before(dying, step)
        await dying.processor.stop()
        self.happened[f"killed before {step}"] += 1
        self.world.rebalance(dying)
        await self._replace()

    async def _die_before(self, worker: Worker, step: str) -> None:
        async def die(name: str, partition: int) -> None:
            if name == step:
                raise Died

        worker.processor.before_step = die
        await worker.processor.tick(0)

    async def _freeze(self) -> None:
        """The owner stops beyond its session; another takes over, and it wakes up later with old memory."""
        self.happened["frozen"] += 1
        await self.world.poll(self.worker, limit=100)
        self.zombies.append(self.worker)
        self.world.broker.generation[0] += 1
        await self._replace()

    async def _wake(self) -> None:
        """Zombies go on as if nothing had happened, until they are fenced."""
        for zombie in list(self.zombies):
            if self.rng.random() < 0.15:
                await self.world.poll(zombie, limit=50)
            if self.rng.random() < 0.3:
                await zombie.processor.tick(0)
            if zombie.processor.claim_of(0) is None:
                self.zombies.remove(zombie)
                self.happened["zombie fenced"] += 1

    def _fail_over(self) -> None:
        """The store falls back behind what it had confirmed, but not to before the first start."""
        depth = min(self.rng.randint(1, FAIL_OVER_DEPTH_MAX), self.world.store.writes - self.first_writes)
        if depth > 0:
            self.happened["failed over"] += 1
            self.world.store.fail_over(depth)

    async def _heal(self) -> None:
        """Nothing goes wrong any more: read to the end, and punctuation to its end."""
        self.worker.processor.before_step = None
        for _ in range(20):
            await self.world.settle(self.worker)
            await self._claim()
            if not unread(self.world, self.worker):
                return
        raise AssertionError("the worker does not come to rest")
