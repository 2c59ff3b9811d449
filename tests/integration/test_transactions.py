"""Transactions on a real broker: all or nothing, and the transactional id alone keeps out whoever lost the task.

The members here belong to no group at all, so nothing but the id can fence them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.errors import Fenced, LogUnavailable
from streams.processing.ports import OutRecord
from streams.transport.group import Group
from streams.transport.transactions import Transactions
from tests.support.brokers import Brokers, Names, create_topics

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(90)]

TASK = 0
ROUNDS, ROUND_S = 8, 0.05
"""How often a transaction is overtaken, each time so much longer before its end; the last time by far."""


class Stopped(Exception):
    """The worker stopped here."""


class Setup:
    """Topics and a group, workers of one task, and what readers of committed records see."""

    def __init__(self, bootstrap: str, names: Names) -> None:
        self.bootstrap, self.names = bootstrap, names
        self.input, self.output = names.topic("cart.v1"), names.topic("triggers.v1")
        create_topics(bootstrap, self.input, self.output)
        self.workers: list[Transactions] = []

    def worker(self, **seams: Any) -> Transactions:
        """One worker's transactions; seams replace methods of its producers."""

        def new(transactional_id: str) -> AIOKafkaProducer:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap, transactional_id=transactional_id, transaction_timeout_ms=15_000
            )
            for name, seam in seams.items():
                setattr(producer, name, partial(seam, getattr(producer, name)))
            return producer

        self.workers.append(Transactions(new, self.names.group, 20_000))
        return self.workers[-1]

    def outputs(self, *values: str) -> list[OutRecord]:
        return [OutRecord(self.output, TASK, b"c", value.encode(), [("ce_id", value.encode())], 0) for value in values]

    async def publish(self, worker: Transactions, position: int, *values: str) -> None:
        await worker.transact(TASK, self.outputs(*values), {self.input: position}, f"commit {position}")

    async def seen(self) -> list[str]:
        """Every committed record of the output; waits until no transaction is open or being ended."""
        tp = TopicPartition(self.output, TASK)
        async with self._consumer(isolation_level="read_committed") as reader, self._consumer() as uncommitted:
            reader.assign([tp])
            end, found = (await uncommitted.end_offsets([tp]))[tp], []
            while (await reader.end_offsets([tp]))[tp] < end:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.01)
            await reader.seek_to_beginning(tp)
            while await reader.position(tp) < end:
                found += [record.value.decode() for record in (await reader.getmany(tp, timeout_ms=200)).get(tp, [])]
            return found

    async def committed(self) -> int | None:
        async with self._consumer(group_id=self.names.group) as consumer:
            tp = TopicPartition(self.input, TASK)
            consumer.assign([tp])
            found: int | None = await consumer.committed(tp)
            return found

    async def told(self) -> str | None:
        """The id that went with the offsets, as a claim reads it."""
        async with self._consumer(group_id=self.names.group) as consumer:
            consumer.assign([TopicPartition(self.input, TASK)])
            return await Group(consumer, 20_000).told(TASK, [self.input])

    @asynccontextmanager
    async def _consumer(self, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, **options)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


@pytest.fixture
async def setup(brokers: Brokers, names: Names) -> AsyncIterator[Setup]:
    made = Setup(brokers.bootstrap, names)
    yield made
    for worker in made.workers:
        await worker.close()


async def test_outputs_and_offsets_become_visible_together(setup: Setup) -> None:
    """One transaction after the other, also one with offsets alone."""
    worker = setup.worker()
    await worker.take_over(TASK)
    assert await setup.committed() is None
    await setup.publish(worker, 3, "one", "two")
    assert (await setup.seen(), await setup.committed()) == (["one", "two"], 3)
    await setup.publish(worker, 5)
    await setup.publish(worker, 7, "three")
    assert (await setup.seen(), await setup.committed()) == (["one", "two", "three"], 7)
    assert await setup.told() == "commit 7"


async def test_a_zombie_is_fenced_by_the_transactional_id_alone(setup: Setup) -> None:
    """Whoever took the task over last is the only one whose outputs and offsets count."""
    zombie, owner = setup.worker(), setup.worker()
    await zombie.take_over(TASK)
    await setup.publish(zombie, 1, "one")
    await owner.take_over(TASK)
    with pytest.raises(Fenced):
        await setup.publish(zombie, 2, "ghost")
    await setup.publish(owner, 3, "two")
    with pytest.raises(Fenced, match="let go"):
        await setup.publish(zombie, 9, "ghost")
    assert (await setup.seen(), await setup.committed()) == (["one", "two"], 3)


@pytest.mark.parametrize("before", ["send_offsets_to_transaction", "commit_transaction"])
async def test_a_zombie_frozen_inside_its_transaction_is_fenced_when_it_wakes(setup: Setup, before: str) -> None:
    """Its outputs are in the log, even its offsets: the successor ends them at once, unseen, and goes on."""
    frozen, woken = asyncio.Event(), asyncio.Event()

    async def freeze(plain: Any, *args: Any) -> None:
        frozen.set()
        await woken.wait()
        await plain(*args)

    zombie, owner = setup.worker(**{before: freeze}), setup.worker()
    await zombie.take_over(TASK)
    publishing = asyncio.create_task(setup.publish(zombie, 2, "ghost"))
    await frozen.wait()
    await owner.take_over(TASK)
    assert await setup.committed() is None
    await setup.publish(owner, 1, "one")
    woken.set()
    with pytest.raises(Fenced):
        await publishing
    await setup.publish(owner, 3, "two")
    assert (await setup.seen(), await setup.committed()) == (["one", "two"], 3)


async def test_a_worker_that_dies_inside_its_transaction_holds_nobody_up(setup: Setup) -> None:
    """Readers and the successor need not wait for the 15 s of the transaction's timeout."""

    async def die(plain: Any, *args: Any) -> None:
        raise Stopped

    dead, successor = setup.worker(commit_transaction=die), setup.worker()
    await dead.take_over(TASK)
    with pytest.raises(Stopped):
        await setup.publish(dead, 2, "ghost")
    async with asyncio.timeout(8):
        await successor.take_over(TASK)
        await setup.publish(successor, 2, "one")
        assert (await setup.seen(), await setup.committed()) == (["one"], 2)


async def test_offsets_read_after_a_take_over_are_final(setup: Setup) -> None:
    """Overtaken before, while or after it ends, a transaction is told by the offsets as it is seen by readers."""
    expected: list[str] = []
    for number in range(ROUNDS):

        async def late(plain: Any, number: int = number) -> None:
            await asyncio.sleep(ROUND_S * number if number < ROUNDS - 1 else 3)
            await plain()

        first, second, base = setup.worker(commit_transaction=late), setup.worker(), len(expected)
        await first.take_over(TASK)
        publishing = asyncio.create_task(setup.publish(first, base + 1, f"r{number}"))
        if number == 0:
            await publishing
        await second.take_over(TASK)
        known = await setup.committed() or 0
        assert known in (base, base + 1)
        expected += [f"r{number}"] * (known - base)
        await asyncio.wait({publishing})
        assert publishing.exception() is not None or known == base + 1
        assert (await setup.committed() or 0, await setup.seen()) == (known, expected)
    assert 0 < len(expected) < ROUNDS


async def test_a_broker_that_is_away_is_waited_for(names: Names) -> None:
    """No producer, no claim: the table manager tries again."""
    nowhere = Transactions(
        lambda name: AIOKafkaProducer(bootstrap_servers="127.0.0.1:9", transactional_id=name), names.group, 2_000
    )
    with pytest.raises(LogUnavailable):
        await nowhere.take_over(TASK)
    with pytest.raises(Fenced):
        await nowhere.transact(TASK, [], {}, "commit")
    await nowhere.close()
