"""Asking whether Kafka is there at all, before a client begins to try for long."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from streams.errors import LogUnavailable
from streams.settings import Settings

CONNECT_S_MAX = 5.0


def reach_kafka(settings: Settings) -> None:
    """Return if a broker to start from accepts a connection; LogUnavailable, with what to do, if none does."""
    timeout_s = min(CONNECT_S_MAX, settings.request_timeout_ms / 1_000)
    reasons = []
    for address in settings.kafka_bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
            return
        except OSError as error:
            reasons.append(error.strerror or type(error).__name__)
    raise LogUnavailable(
        f"Kafka does not answer at {settings.kafka_bootstrap} ({', '.join(dict.fromkeys(reasons))}). "
        "`pulseline stack up` starts one here; PULSELINE_KAFKA_BOOTSTRAP names another."
    )


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """Turn what Kafka's client raises into LogUnavailable."""
    from kafka.errors import KafkaError

    try:
        yield
    except KafkaError as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap}: {type(error).__name__}: {error}") from error
