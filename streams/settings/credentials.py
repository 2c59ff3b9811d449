"""The one place that makes connection options of the settings: for every client of Kafka and Redis there is."""

import ssl
from pathlib import Path
from typing import Any, Literal

from streams.errors import InvalidSettings
from streams.settings.connections import Connections
from streams.settings.sources import PREFIX

Server = Literal["kafka", "redis"]


def kafka_options(settings: Connections) -> dict[str, Any]:
    """Security options by the names that aiokafka and kafka-python share; {} where there is no security.

    Reads the files of certificates and secrets; raises InvalidSettings where one cannot be used.
    """
    options: dict[str, Any] = {}
    if settings.kafka_security != "PLAINTEXT":
        options["security_protocol"] = settings.kafka_security
    if settings.kafka_encrypted:
        options["ssl_context"] = tls_context(settings, "kafka")
    if settings.kafka_security.startswith("SASL_"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": _secret(settings, "kafka_password"),
        }
    return options


def redis_options(settings: Connections) -> dict[str, Any]:
    """Options of redis-py besides the URL, which wins over them; {} where the URL says all.

    Raises InvalidSettings as `kafka_options` does.
    """
    password = _secret(settings, "redis_password")
    options: dict[str, Any] = {} if password is None else {"password": password}
    if settings.redis_encrypted:
        tls_context(settings, "redis")  # redis-py's own words for a bad file name neither file nor setting
        found = {
            "ssl_ca_certs": settings.redis_ca,
            "ssl_certfile": settings.redis_cert,
            "ssl_keyfile": settings.redis_key,
            "ssl_password": _secret(settings, "redis_key_password"),
        }
        options |= {name: str(value) for name, value in found.items() if value is not None}
        options["ssl_check_hostname"] = settings.redis_verify_hostname
    return options


def tls_context(settings: Connections, server: Server) -> ssl.SSLContext:
    """TLS 1.2 or newer that checks the server's certificate, and its host unless the settings say otherwise."""
    name = f"{PREFIX}{server.upper()}"
    ca, cert, key = (_file(settings, f"{server}_{part}") for part in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise InvalidSettings(f"{name}_CA={ca} holds no certificate in PEM form.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = getattr(settings, f"{server}_verify_hostname")
    if cert is not None:
        # A function, because OpenSSL asks on the terminal where it is told of no password.
        password = _secret(settings, f"{server}_key_password") or ""
        try:
            context.load_cert_chain(cert, key, lambda: password)
        except ssl.SSLError:
            raise InvalidSettings(
                f"{name}_CERT={cert} and {name}_KEY={key} cannot be used: they must be a pair in PEM form, and "
                f"{name}_KEY_PASSWORD (or ..._FILE) the key's password, if it has one."
            ) from None
    return context


def _secret(settings: Connections, attribute: str) -> str | None:
    try:
        secret = settings.secret(attribute)
    except (OSError, UnicodeDecodeError) as error:
        file = getattr(settings, f"{attribute}_file")
        raise InvalidSettings(_unreadable(f"{attribute}_file", file, error)) from None
    if secret == "":
        raise InvalidSettings(f"The file that {PREFIX}{attribute.upper()}_FILE names is empty.")
    return secret


def _file(settings: Connections, attribute: str) -> str | None:
    path: Path | None = getattr(settings, attribute)
    if path is None:
        return None
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidSettings(_unreadable(attribute, path, error)) from None
    return str(path)


def _unreadable(attribute: str, path: Path, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    return f"{PREFIX}{attribute.upper()}={path} cannot be read: {why}."
