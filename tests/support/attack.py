"""One customer who sends all he can, from a process of its own, so that it costs those who measure nothing."""

import asyncio
import json
import multiprocessing
import time
from multiprocessing.synchronize import Event
from random import Random
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from models.topics import topic_name
from streams.stores.keys import partition_of

CUSTOMER = "c-attacker"
CARTS = 10_000
HUGE_CHARS, HUGE_EVERY = 1_000_000, 2_000
"""Every so many events one has a text of 1 MB."""


class Attack:
    """So many events at a rate, between `go` and `rest`: 10,000 cart ids, texts of all lengths."""

    def __init__(self, bootstrap: str, prefix: str, tasks: int, *, events: int, per_s: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._going, self._sent = context.Event(), context.Value("i", 0)
        self._process = context.Process(
            target=_attack, args=(bootstrap, prefix, tasks, events, per_s, self._going, self._sent), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.join()
        if kind is None:
            assert self._process.exitcode == 0

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    @property
    def sent(self) -> int:
        return int(self._sent.value)

    @property
    def huge(self) -> int:
        return (self.sent + HUGE_EVERY // 2 - 1) // HUGE_EVERY

    def go(self) -> None:
        self._going.set()

    def rest(self) -> None:
        self._going.clear()


def _attack(bootstrap: str, prefix: str, tasks: int, events: int, per_s: int, going: Event, sent: Any) -> None:
    asyncio.run(_send_all(bootstrap, prefix, tasks, events, per_s, going, sent))


async def _send_all(bootstrap: str, prefix: str, tasks: int, events: int, per_s: int, going: Event, sent: Any) -> None:
    random = Random(3)
    pages = [_page(random) for _ in range(2_000)]
    task, part = partition_of(CUSTOMER, tasks), max(1, per_s // 50)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type="gzip", max_request_size=8 << 20, linger_ms=20
    ) as producer:
        while sent.value < events:
            begun = time.monotonic()
            if not going.is_set():
                await asyncio.sleep(0.02)
                continue
            for number in range(sent.value, min(sent.value + part, events)):
                channel, value = _event(pages, number)
                await producer.send(topic_name(prefix, f"{channel}.v1"), value, key=CUSTOMER.encode(), partition=task)
                sent.value = number + 1
            await asyncio.sleep(max(0.0, begun + part / per_s - time.monotonic()))


def _event(pages: list[tuple[str, str]], number: int) -> tuple[str, bytes]:
    """(channel, value): a prepared page with its own id, time and cart."""
    channel, page = pages[number % len(pages)]
    if number % HUGE_EVERY == HUGE_EVERY // 2:
        channel, page = "cart", '{%s, "type": "product_added", "product_id": "' + "x" * HUGE_CHARS + '"}'
    common = f'"event_id": "a-{number}", "customer_id": "{CUSTOMER}", "occurred_at_ms": {int(time.time() * 1_000)}'
    return channel, page.replace("%s", f'{common}, "cart_id": "cart-{number % CARTS}"', 1).encode()


def _page(random: Random) -> tuple[str, str]:
    """(channel, JSON with a gap for what is each event's own)."""
    if random.random() < 0.4:
        return "clickstream", '{%s, "type": "page_viewed", "url": "' + _text(random, 2_048) + '"}'
    if random.random() < 0.1:
        kind, fields = "cart_updated", {"items": [_piece(random) for _ in range(10)]}
    else:
        kind, fields = "product_added", _piece(random)
    return "cart", '{%s, "type": "' + kind + '", ' + json.dumps({**fields, "currency": "EUR"})[1:]


def _piece(random: Random) -> dict[str, Any]:
    return {
        "product_id": f"p-{random.randrange(5_000)}",
        "name": _text(random, 512),
        "url": _text(random, 2_048),
        "unit_price_minor": random.randrange(10_000),
        "quantity": 1,
    }


def _text(random: Random, longest: int) -> str:
    """Mostly short, some as long as is allowed."""
    return "t" * (longest if random.random() < 0.03 else random.randint(5, 80))
