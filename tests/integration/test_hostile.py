"""Hostile input on real brokers: one customer who sends as much as he can, and a burst of rubbish.

The short ones run with `make test`, the long ones print their figures with `make hostile`.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.stores.keys import TaskKeys, partition_of
from tests.support.attack import CUSTOMER, Attack
from tests.support.brokers import Brokers, Names
from tests.support.site import Program, Site, stop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3_600)]

TASKS = 2
HOT_BYTES_MAX, COLD_BYTES_MAX = 20_480, 65_536
ORDINARY_PER_S = 40
GROWTH_BYTES_MAX = 150_000_000
"""Of the worker's peak memory: pending outputs, buffered runs, a fetch of 1 MB records."""


@pytest.fixture
def site(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Site]:
    running = Site(brokers, names, tmp_path, PARTITIONS=str(TASKS), COMMIT_INTERVAL="500ms")
    try:
        yield running
    finally:
        running.end()


def now_ms() -> int:
    return int(time.time() * 1_000)


def peak_bytes(program: Program) -> int:
    """Peak resident memory of a process."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1_024


def cpu_s(program: Program) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@dataclass
class Ordinary:
    """A new customer 40 times a second, and how long each waits for the score: from Kafka's ack of the event on."""

    site: Site
    sent: dict[str, float] = field(default_factory=dict)
    waited_ms: dict[str, float] = field(default_factory=dict)

    async def measure(self, seconds: float) -> list[float]:
        """Latencies in ms of the customers of so many seconds."""
        name, before = self.site.names.topic, len(self.sent)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.site.brokers.bootstrap, fetch_max_wait_ms=10)
        async with AIOKafkaProducer(bootstrap_servers=self.site.brokers.bootstrap) as producer, consumer:
            consumer.assign([TopicPartition(name("scores.v1"), task) for task in range(TASKS)])
            await consumer.seek_to_end()
            reading = asyncio.create_task(self._read(consumer))
            begun = time.monotonic()
            for number in range(int(seconds * ORDINARY_PER_S)):
                await self._send(producer, f"o-{before + number}")
                await asyncio.sleep(max(0.0, begun + (number + 1) / ORDINARY_PER_S - time.monotonic()))
            async with asyncio.timeout(60):
                while len(self.waited_ms) < len(self.sent):  # noqa: ASYNC110 - the records of a topic have no event
                    await asyncio.sleep(0.05)
            reading.cancel()
        return [self.waited_ms[customer] for customer in list(self.sent)[before:]]

    async def _send(self, producer: Any, customer: str) -> None:
        event = {"event_id": customer, "type": "page_viewed", "customer_id": customer, "occurred_at_ms": now_ms()}
        topic, task = self.site.names.topic("clickstream.v1"), partition_of(customer, TASKS)
        await producer.send_and_wait(topic, json.dumps(event).encode(), key=customer.encode(), partition=task)
        self.sent[customer] = time.monotonic()

    async def _read(self, consumer: Any) -> None:
        async for record in consumer:
            customer = record.key.decode()
            if customer in self.sent and customer not in self.waited_ms:
                self.waited_ms[customer] = (time.monotonic() - self.sent[customer]) * 1_000


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def fields_of(site: Site, customer: str) -> tuple[int, int]:
    """Bytes of a customer's hot and cold field in Redis."""
    task = partition_of(customer, TASKS)
    found = [0, 0]
    with redis.Redis.from_url(site.brokers.redis_url, protocol=2) as client:
        for key in TaskKeys(site.names.app_id, task).states:
            for index, mark in enumerate((b"h:", b"c:")):
                value = client.hget(key, mark + customer.encode())
                found[index] = max(found[index], len(value or b""))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("events", "per_s", "quiet_s", "attack_s"),
    [
        pytest.param(3_000, 500, 2.0, 6.0, id="short"),
        pytest.param(1_000_000, 2_000, 8.0, 20.0, id="long", marks=pytest.mark.chaos_long),
    ],
)
def test_one_customer_cannot_grow_past_the_caps_nor_slow_the_others(
    site: Site, events: int, per_s: int, quiet_s: float, attack_s: float
) -> None:
    """His fields in Redis and the worker's memory stay small, and every ordinary customer has a score meanwhile.

    The long one also compares the latency of ordinary customers, from Kafka's ack of an event to its score, in
    windows without and with the attack by turns: p99 may be a tenth longer.
    """
    worker, ordinary = site.run(), Ordinary(site)
    site.wait_claimed(worker)
    asyncio.run(ordinary.measure(3))
    quiet, attacked, heaviest = [], [], (0, 0)
    resident, used = peak_bytes(worker), cpu_s(worker)
    with Attack(site.brokers.bootstrap, site.names.topic_prefix, TASKS, events=events, per_s=per_s) as attack:
        while attack.running:
            quiet += asyncio.run(ordinary.measure(quiet_s))
            attack.go()
            attacked += asyncio.run(ordinary.measure(attack_s))
            attack.rest()
            hot, cold = fields_of(site, CUSTOMER)
            heaviest = max(heaviest[0], hot), max(heaviest[1], cold)
    site.wait("all is read", lambda: site.account().total() >= attack.sent + len(ordinary.sent), 300)
    account, limits, used = site.account(), limits_of(site), cpu_s(worker) - used
    print(
        f"\n{attack.sent:,} events of one customer at {per_s:,}/s, {attack.huge} texts of 1 MB. Ordinary customers, "
        f"{len(quiet):,} without and {len(attacked):,} with him: "
        f"p50 {percentile(quiet, 0.5):.0f} -> {percentile(attacked, 0.5):.0f} ms, "
        f"p99 {percentile(quiet, 0.99):.0f} -> {percentile(attacked, 0.99):.0f} ms. His fields: hot {heaviest[0]:,} B, "
        f"cold {heaviest[1]:,} B. Peak memory {resident / 1e6:.0f} -> {peak_bytes(worker) / 1e6:.0f} MB. "
        f"{used / account.total() * 1e6:.0f} us of CPU an event. {limits}"
    )
    assert account["rejected"] == attack.huge > 0
    assert 0 < heaviest[0] <= HOT_BYTES_MAX
    assert 0 < heaviest[1] <= COLD_BYTES_MAX
    assert limits["carts_trimmed"] > 0
    assert peak_bytes(worker) - resident < GROWTH_BYTES_MAX
    if events >= 1_000_000:
        assert percentile(attacked, 0.99) <= 1.1 * percentile(quiet, 0.99)
    assert stop(worker)[0] == 0


def limits_of(site: Site) -> dict[str, int]:
    """How often a limit of carts was reached, by the books."""
    topics = [topic for book in site.books().values() for topic in book.topics.values()]
    names = ("folded_early", "lines_dropped", "carts_trimmed")
    return {name: sum(getattr(topic, name) for topic in topics) for name in names}


RUBBISH = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"type": "page_viewed"}', b'{"type": "nothing"}', b"x" * 70_000)


@pytest.mark.parametrize("records", [6_000, pytest.param(500_000, marks=pytest.mark.chaos_long)])
def test_a_burst_of_nothing_but_rubbish_is_rejected_and_accounted(site: Site, records: int) -> None:
    """Each record once in the rejected topic, memory bounded, the task alive: an event afterwards is served."""
    worker = site.run()
    site.wait_claimed(worker)
    resident = peak_bytes(worker)
    asyncio.run(throw(site, records))
    begun = time.monotonic()
    site.wait("all is rejected", lambda: site.account()["rejected"] >= records, 600)
    took_s = time.monotonic() - begun
    print(
        f"\n{records:,} rubbish records rejected at {records / took_s:,.0f}/s or more, "
        f"peak memory {resident / 1e6:.0f} -> {peak_bytes(worker) / 1e6:.0f} MB"
    )
    assert site.account()["rejected"] == records
    assert peak_bytes(worker) - resident < GROWTH_BYTES_MAX
    assert asyncio.run(held(site, "rejected.v1")) == records
    site.send(5)
    site.wait("events are applied", lambda: site.account()["applied"] == 5)
    assert stop(worker)[0] == 0


async def throw(site: Site, records: int) -> None:
    """Send rubbish to all input topics, half of it twice the same."""
    async with AIOKafkaProducer(
        bootstrap_servers=site.brokers.bootstrap, compression_type="gzip", linger_ms=20, max_request_size=8 << 20
    ) as producer:
        for number in range(records):
            value = RUBBISH[number % len(RUBBISH)] if number % 100 else b"x" * 70_000
            channel = ("clickstream", "cart", "email", "social")[number % 4]
            await producer.send(
                site.names.topic(f"{channel}.v1"), value, key=f"r-{number % 7}".encode(), partition=number // 4 % TASKS
            )
        await producer.flush()


async def held(site: Site, topic: str) -> int:
    """How many records a topic holds."""
    async with AIOKafkaConsumer(bootstrap_servers=site.brokers.bootstrap) as consumer:
        parts = [TopicPartition(site.names.topic(topic), task) for task in range(TASKS)]
        ends = await consumer.end_offsets(parts)
        return sum(ends.values())
