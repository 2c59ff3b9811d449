"""Connecting a Kafka client at the start: wait a while for a Kafka that is not there yet, then say so and stop."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from aiokafka.errors import KafkaError
from mode import Service, get_logger

from streams.errors import LogUnavailable
from streams.transport.wiring import Wiring

logger = get_logger(__name__)

RETRY_S = 2.0


async def connected(service: Service, new: Callable[[], Any], wiring: Wiring) -> Any:
    """Return a started client of `new()`, or None where the service was stopped meanwhile.

    Retries for the time of one request, then stops the worker with LogUnavailable.
    """
    begun = monotonic()
    while not service.should_stop:
        try:
            return await _started(new())
        except KafkaError as error:
            logger.warning("Kafka at %s does not answer (%s), trying again", wiring.bootstrap, type(error).__name__)
        if monotonic() - begun > wiring.request_timeout_ms / 1_000:
            wiring.fatal(LogUnavailable(f"Kafka at {wiring.bootstrap} does not answer: is it running?"))
            await service.wait_until_stopped()
        await service.sleep(RETRY_S)
    return None


async def _started(client: Any) -> Any:
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
    return client
