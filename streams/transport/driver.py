"""The Faust transport `pulseline://host:port` (entry point `faust.transports`): aiokafka, gated by claims."""

from collections.abc import Mapping
from typing import Any

import faust.transport.drivers.aiokafka as stock
from aiokafka import AIOKafkaProducer

from streams.transport.closing import closed_in_time
from streams.transport.connect import connected
from streams.transport.consumer import Consumer
from streams.transport.versions import require_versions

TRANSACTION_TIMEOUT_MS = 15_000
"""Kafka ends a transaction that stays open for longer, so that a frozen worker holds no reader up."""


class Producer(stock.Producer):
    """The worker's one producer: idempotent, started before everything else, stopped last."""

    app: Any
    mundane_level = "debug"

    async def on_start(self) -> None:
        """Connect, waiting for Kafka as long as a request may take; then stop the worker, saying so."""
        self._producer = await connected(self, self._new_producer, self.app.wiring)

    async def on_stop(self) -> None:
        """Close it in time: it would wait for the acks of what no broker takes."""
        await closed_in_time(super().on_stop(), "the producer", self.app.wiring.close_deadline_ms)

    @property
    def kafka(self) -> AIOKafkaProducer:
        """The aiokafka producer."""
        return self._ensure_producer()

    async def renew(self, broken: AIOKafkaProducer) -> None:
        """Replace a producer that failed for good (a lost sequence cannot be repaired)."""
        if self._producer is broken:
            self._producer = self._new_producer()
            await self._producer.start()
        await broken.stop()

    def transactional(self, transactional_id: str) -> AIOKafkaProducer:
        """Return one more producer with this one's settings, for transactions; not started."""
        return self._new_producer(transactional_id=transactional_id)

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}


class Transport(stock.Transport):
    """What Faust makes its consumer and producer of."""

    Consumer = Consumer
    Producer = Producer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_versions()
        super().__init__(*args, **kwargs)
