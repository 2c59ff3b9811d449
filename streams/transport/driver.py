"""The Faust transport `pulseline://host:port` (entry point `faust.transports`): aiokafka, gated by claims."""

from collections.abc import Mapping
from time import monotonic
from typing import Any

import faust.transport.drivers.aiokafka as stock
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from mode import get_logger

from streams.errors import LogUnavailable
from streams.transport.consumer import Consumer
from streams.transport.versions import require_versions

logger = get_logger(__name__)

CONNECT_RETRY_S = 2.0


class Producer(stock.Producer):
    """The worker's one producer: idempotent, started before everything else, stopped last."""

    app: Any

    async def on_start(self) -> None:
        """Connect, waiting for Kafka as long as a request may take; then stop the worker, saying so."""
        begun, wiring = monotonic(), self.app.wiring
        while not self.should_stop:
            try:
                self._producer = await self._connected()
            except KafkaError as error:
                logger.warning(
                    "Kafka at %s does not answer (%s), trying again", self._bootstrap(), type(error).__name__
                )
            else:
                break
            if monotonic() - begun > wiring.request_timeout_ms / 1_000:
                wiring.fatal(LogUnavailable(f"Kafka at {self._bootstrap()} does not answer: is it running?"))
                await self.wait_until_stopped()
            await self.sleep(CONNECT_RETRY_S)

    @property
    def kafka(self) -> AIOKafkaProducer:
        """The aiokafka producer."""
        return self._ensure_producer()

    async def renew(self, broken: AIOKafkaProducer) -> None:
        """Replace a producer that failed for good (a lost sequence cannot be repaired)."""
        if self._producer is broken:
            self._producer = await self._connected()
        await broken.stop()

    async def _connected(self) -> AIOKafkaProducer:
        kafka = self._new_producer()
        try:
            await kafka.start()
        except BaseException:
            await kafka.stop()
            raise
        return kafka

    def _bootstrap(self) -> str:
        return ",".join(f"{url.host}:{url.port}" for url in self.transport.url)

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(stock.Transport):
    """What Faust makes its consumer and producer of."""

    Consumer = Consumer
    Producer = Producer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_versions()
        super().__init__(*args, **kwargs)
