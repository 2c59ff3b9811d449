"""Connecting a Kafka client at the start: wait a while for a Kafka that is not there yet, then say so and stop.

A Kafka that is there and does not let us in is not waited for: a person must mend that.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any

from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from mode import Service, get_logger

from streams.errors import AccessDenied, LogUnavailable
from streams.transport.refusals import Judged, why_not
from streams.transport.wiring import Wiring

logger = get_logger(__name__)

RETRY_S = 2.0


async def connected(service: Service, new: Callable[[], Any], wiring: Wiring) -> Any:
    """Return a started client of `new()`, or None where the service was stopped meanwhile.

    Retries for the time of one request, then stops the worker with LogUnavailable; with AccessDenied at once.
    """
    begun = monotonic()
    while not service.should_stop:
        try:
            return await _started(new())
        except KafkaError as error:
            reason = await _reason(service, wiring, error)
        if isinstance(reason, AccessDenied) or monotonic() - begun > wiring.request_timeout_ms / 1_000:
            wiring.fatal(reason)
            await service.wait_until_stopped()
        else:
            logger.warning("%s; trying again", reason)
            await service.sleep(RETRY_S)
    return None


async def _reason(service: Any, wiring: Wiring, error: KafkaError) -> Judged:
    conf = service.app.conf
    options = credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
    found = await why_not(wiring.bootstrap, options, wiring.request_timeout_ms)
    return found or LogUnavailable(f"Kafka at {wiring.bootstrap} answers {type(error).__name__}")


async def _started(client: Any) -> Any:
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
    return client
