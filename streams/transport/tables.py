"""The table manager: an assigned partition is not recovered from a changelog, it is claimed from the store.

Assigned: one claim task per partition number, retried until it succeeds; then the task's partitions are opened at the
offsets of its state. Revoked: closed, committed, forgotten. Fenced: closed, and claimed again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from time import monotonic
from typing import Any, cast

import faust.tables.manager as stock
from aiokafka.errors import IllegalStateError, KafkaError
from faust.types import TP
from faust.types.tables import CollectionT
from mode import get_logger

from streams.errors import LogUnavailable, PulselineError, Retriable, SplitTask, TopicProblem
from streams.transport.consumer import Consumer
from streams.transport.wiring import Wiring

logger = get_logger(__name__)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0


class TableManager(stock.TableManager):
    """Faust's table manager without changelogs (Faust setting `TableManager`)."""

    app: Any
    mundane_level = "debug"

    def __post_init__(self) -> None:
        self._owned: frozenset[int] = frozenset()
        self._claiming: dict[int, asyncio.Task[None]] = {}
        self._completed = asyncio.Event()
        self._releasing = asyncio.Lock()

    @property
    def wiring(self) -> Wiring:
        """The application's wiring."""
        return cast(Wiring, self.app.wiring)

    @property
    def consumer(self) -> Consumer:
        """The app's consumer."""
        return cast(Consumer, self.app.consumer)

    @property
    def owned(self) -> frozenset[int]:
        """Partition numbers assigned to this worker."""
        return self._owned

    # ------------------------------------------------------------------ claims

    def _start_claim(self, partition: int) -> None:
        running = self._claiming.get(partition)
        if running is None or running.done():
            self._claiming[partition] = asyncio.create_task(self._claim(partition), name=f"claim-{partition}")

    async def _claim(self, partition: int) -> None:
        """Claim until it succeeds, then let the task's records flow."""
        processor, backoff = self.wiring.processor, BACKOFF_FIRST_S
        while partition in self._owned:
            try:
                offsets = await processor.claim(partition)
                claim = processor.claim_of(partition)
                if claim is not None:
                    self.consumer.open(partition, claim, offsets)
                    self._say_when_all_flow()
                    break
            except Retriable as error:
                logger.warning("task %d cannot be claimed yet (%s: %s)", partition, type(error).__name__, error)
            except IllegalStateError:
                # Taken away while it was claimed; the revocation is on its way.
                processor.forget((partition,))
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, it stops the worker, aloud
                self.wiring.fatal(error)
                break
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_MAX_S)

    def _say_when_all_flow(self) -> None:
        if self.consumer.opened >= self._owned:
            logger.info("all %d tasks are claimed; records flow", len(self._owned))

    def on_fenced(self, partition: int, reason: Exception) -> None:
        """Stop fetching for the task and claim it again, if it is still ours."""
        if partition in self._owned:
            logger.info("task %d is claimed again (%s)", partition, type(reason).__name__)
            self.consumer.close_tasks((partition,))
            self._start_claim(partition)

    async def revoke(self, partitions: Collection[int], *, lost: bool) -> None:
        """Close the tasks; commit what they hold unless the group gave them to others already; forget them."""
        self._owned = frozenset()
        self.consumer.close_tasks()
        async with self._releasing:
            await self._stop_claiming()
            if lost:
                self.wiring.processor.forget(partitions)
            else:
                await self.wiring.processor.release(partitions, self.wiring.revoke_deadline_ms)

    async def _stop_claiming(self) -> None:
        claims, self._claiming = list(self._claiming.values()), {}
        for claim in claims:
            claim.cancel()
        await asyncio.gather(*claims, return_exceptions=True)

    # ------------------------------------------------------------------ Faust's life of a table manager

    def add(self, table: CollectionT) -> CollectionT:
        """Register a table; it has no changelog."""
        if self._tables_finalized.is_set():
            raise RuntimeError("too late to add tables")
        if table.name in self:
            raise ValueError(f"a table with the name {table.name!r} exists already")
        self[table.name] = table
        return table

    async def on_start(self) -> None:
        await self._check_surroundings()
        await self._update_channels()

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Close the tasks at once, from a plain call; `revoke` or `on_stop` commits them."""
        self.consumer.close_tasks({tp.partition for tp in revoked})

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Let the flow go on and claim what is assigned."""
        self._recovery_started.set()
        try:
            self._owned = self._whole_tasks(assigned)
        except (SplitTask, TopicProblem) as error:
            self.wiring.fatal(error)
            return
        for table in self.values():
            await table.on_rebalance(assigned, revoked, newly_assigned, generation_id)
        await self.app.on_rebalance_complete.send()
        self.app.flow_control.resume()
        self.consumer.resume_flow()
        await self.app._fetcher.maybe_start()
        self.on_actives_ready()
        self.on_standbys_ready()
        self._completed.set()
        logger.info("generation %d: %d tasks assigned: %s", generation_id, len(self._owned), sorted(self._owned))
        for partition in sorted(self._owned):
            self._start_claim(partition)

    def _whole_tasks(self, assigned: set[TP]) -> frozenset[int]:
        """Partition numbers assigned; SplitTask unless each is assigned for all input topics."""
        topics: dict[int, set[str]] = defaultdict(set)
        for tp in assigned:
            topics[tp.partition].add(tp.topic)
        wanted = set(self.wiring.inputs)
        strange = {tp.topic for tp in assigned} - wanted
        if strange:
            raise TopicProblem(
                f"this application fetches its input topics only, not {sorted(strange)}: give such an agent "
                "an application of its own, or a channel of this one"
            )
        for partition, found in sorted(topics.items()):
            if found != wanted:
                raise SplitTask(
                    f"task {partition} was assigned without {sorted(wanted - found)}: the input topics differ in their "
                    "partition counts, or workers of different versions share this group"
                )
        return frozenset(topics)

    async def wait_until_recovery_completed(self) -> bool:
        """True if stopped before the first assignment."""
        return bool(await self.wait_for_stopped(self._completed.wait()))

    async def on_stop(self) -> None:
        """Commit and forget everything, in time to leave the group afterwards."""
        wiring, owned = self.wiring, self._owned
        self._owned = frozenset()
        self.consumer.close_tasks()
        await self.app._fetcher.stop()
        await self._stop_claiming()
        with suppress(TimeoutError):
            # A rebalance that came first may be at the last commits of what it took away.
            async with asyncio.timeout(wiring.stop_deadline_ms / 1_000), self._releasing:
                pass
        await wiring.processor.release(owned, wiring.stop_deadline_ms)
        await wiring.processor.stop()
        for table in self.values():
            await table.stop()

    # ------------------------------------------------------------------ topics

    async def _check_surroundings(self) -> None:
        """Stop the worker where it could not serve; first wait a while where Kafka or the store is away."""
        begun = monotonic()
        while not self.should_stop:
            try:
                await self._require_topics()
                await self.wiring.prepare()
                break
            except PulselineError as problem:
                patience = isinstance(problem, Retriable) and self.wiring.request_timeout_ms / 1_000
                if monotonic() - begun < patience:
                    logger.warning("%s; trying again", problem)
                    await self.sleep(1.0)
                else:
                    self.wiring.fatal(problem)
                    await self.wait_until_stopped()

    async def _require_topics(self) -> None:
        """A topic that is missing would make Faust wait, silently and for ever."""
        try:
            cluster = await self.app.producer.kafka.client.fetch_all_metadata()
        except KafkaError as error:
            raise LogUnavailable(f"Kafka does not tell its topics ({type(error).__name__})") from error
        for topic, wanted in self.wiring.topics.items():
            found = len(cluster.partitions_for_topic(topic) or ())
            if found != wanted:
                problem = f"has {found} partitions, not {wanted}" if found else "does not exist"
                raise TopicProblem(
                    f"topic {topic} {problem}: run `pulseline topics apply`, or correct PARTITIONS or TOPIC_PREFIX"
                )
