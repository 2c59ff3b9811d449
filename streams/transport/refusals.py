"""Why Kafka does not let this client in, asked of a connection: the clients only say that they could not bootstrap.

What a person must mend is AccessDenied; what may pass, a broker that is still starting, is LogUnavailable with a hint.
"""

import ssl
from asyncio import IncompleteReadError
from collections.abc import Iterator, Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.errors import AccessDenied, LogUnavailable

ATTEMPT_MS_MAX = 5_000
TLS_ALERT = 0x15
"""First byte of what a server of TLS answers to whoever speaks something else."""
Judged = AccessDenied | LogUnavailable


async def why_not(bootstrap: str, options: Mapping[str, Any], timeout_ms: int) -> Judged | None:
    """Try each broker of `host:port,...`; None where one lets us in, else the worst of their reasons.

    options: as aiokafka's clients take them. The connections are closed again.
    """
    reasons = []
    for address in bootstrap.split(","):
        try:
            await _enter(address, options, timeout_ms)
        except (OSError, KafkaError, TimeoutError) as error:
            reasons.append(_judge(address, error, options))
        else:
            return None
    return next((reason for reason in reasons if isinstance(reason, AccessDenied)), reasons[0])


async def _enter(address: str, options: Mapping[str, Any], timeout_ms: int) -> None:
    host, _, port = address.rpartition(":")
    connection = await create_conn(
        host.strip("[]"),
        int(port),
        client_id="pulseline",
        request_timeout_ms=min(timeout_ms, ATTEMPT_MS_MAX),
        **options,
    )
    try:
        # Any client may ask for the versions, which is all that connecting does; this is for those who were let in.
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def _judge(address: str, error: Exception, options: Mapping[str, Any]) -> Judged:
    where, security = f"Kafka at {address}", options.get("security_protocol", "PLAINTEXT")
    named = f"PULSELINE_KAFKA_SECURITY={security}"
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return AccessDenied(
                    f"{where} shows a certificate that cannot be trusted: {cause.verify_message.rstrip('.')}. "
                    "Check PULSELINE_KAFKA_CA, the host in PULSELINE_KAFKA_BOOTSTRAP and the certificate"
                )
            case ssl.SSLError() if "ALERT" in (cause.reason or ""):
                return AccessDenied(
                    f"{where} refuses this client's certificate ({_words(cause)}): "
                    "check PULSELINE_KAFKA_CERT and PULSELINE_KAFKA_KEY"
                )
            case ssl.SSLError() | ConnectionResetError() if security in {"SSL", "SASL_SSL"}:
                return LogUnavailable(f"{where} ends the TLS handshake: {named} may be wrong for this port")
            case SaslAuthenticationFailed():
                return AccessDenied(
                    f"{where} does not accept the user and password of PULSELINE_KAFKA_USERNAME and "
                    "PULSELINE_KAFKA_PASSWORD (or ..._FILE): correct them"
                )
            case UnsupportedSaslMechanismError():
                return AccessDenied(
                    f"{where} does not offer PULSELINE_KAFKA_SASL_MECHANISM={options['sasl_mechanism']}: take another"
                )
            case IllegalSaslStateError():
                return AccessDenied(f"{where} knows no users on this port: {named} is wrong for it")
            case IncompleteReadError() if cause.expected is not None and cause.expected >> 24 == TLS_ALERT:
                return AccessDenied(f"{where} speaks TLS: {named} is wrong for this port")
            case IncompleteReadError() if not security.startswith("SASL_"):
                return LogUnavailable(f"{where} hangs up: it may want a user, and {named} is without")
    return LogUnavailable(f"{where} does not answer ({type(error).__name__}): is it running?")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ if isinstance(error, KafkaConnectionError) else None


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "").rpartition("ALERT_")[2].replace("_", " ").lower()
