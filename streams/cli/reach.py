"""Asking whether Kafka is there and lets us in, before a client begins to try for long and does not say why."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from streams.errors import AccessDenied, LogUnavailable
from streams.settings import Settings, kafka_options

CONNECT_S_MAX = 5.0


def reach_kafka(settings: Settings) -> None:
    """Return if a broker to start from accepts a connection, and us where we show who we are.

    Raises LogUnavailable, with what to do, or AccessDenied.
    """
    timeout_s = min(CONNECT_S_MAX, settings.request_timeout_ms / 1_000)
    reasons = []
    for address in settings.kafka_bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
            break
        except OSError as error:
            reasons.append(error.strerror or type(error).__name__)
    else:
        raise LogUnavailable(
            f"Kafka does not answer at {settings.kafka_bootstrap} ({', '.join(dict.fromkeys(reasons))}). "
            "`pulseline stack up` starts one here; PULSELINE_KAFKA_BOOTSTRAP names another."
        )
    if settings.kafka_security != "PLAINTEXT":
        _explain(settings)


def _explain(settings: Settings) -> None:
    """Raise what keeps us out, if something does."""
    from streams.transport.refusals import why_not

    reason = asyncio.run(why_not(settings.kafka_bootstrap, kafka_options(settings), settings.request_timeout_ms))
    if reason is not None:
        raise reason


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """Turn what Kafka's client raises into what it means: AccessDenied or LogUnavailable."""
    from kafka.errors import AuthorizationError, KafkaError

    try:
        yield
    except AuthorizationError as error:
        raise AccessDenied(
            f"Kafka at {settings.kafka_bootstrap} does not let this user do that ({type(error).__name__}): {error}"
        ) from error
    except KafkaError as error:
        _explain(settings)
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap}: {type(error).__name__}: {error}") from error
