"""The settings' credentials as Faust takes them: its consumer and producers hand them on to aiokafka."""

from typing import Any

import faust
from faust.auth import Credentials

from streams.settings import Settings, kafka_options


def faust_credentials(settings: Settings) -> Credentials | None:
    """For Faust's setting `broker_credentials`; None for PLAINTEXT. Raises InvalidSettings as `kafka_options` does."""
    options: dict[str, Any] = kafka_options(settings)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=options.get("ssl_context"),
        )
    return faust.SSLCredentials(options["ssl_context"]) if options else None
