"""The settings that say where Kafka and Redis are and how to be let in, and what they must agree on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

from streams.settings.forms import BROKERS, REDIS, File, Form, Secret, Switch
from streams.settings.sources import PREFIX

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MECHANISM = Form("PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", str.upper)


class Connections(BaseModel):
    """Addresses, credentials and certificates; a secret may stand in a file instead, named by `..._FILE`."""

    kafka_bootstrap: Annotated[str, BROKERS] = Field("127.0.0.1:9092", description="Kafka brokers to start from")
    kafka_security: Security = Field("PLAINTEXT", description="how to talk to Kafka: encrypted, with a user, both")
    kafka_sasl_mechanism: Annotated[Mechanism | None, MECHANISM] = Field(None, description="how Kafka knows a user")
    kafka_username: Annotated[str | None, Form("some text", str)] = Field(None, description="user of Kafka")
    kafka_password: Secret = Field(None, description="the user's password")
    kafka_password_file: File = Field(None, description="file that holds it")
    kafka_ca: File = Field(None, description="certificates that Kafka's is checked with; default: the system's")
    kafka_cert: File = Field(None, description="certificate to show Kafka")
    kafka_key: File = Field(None, description="its private key")
    kafka_key_password: Secret = Field(None, description="password of the key's file")
    kafka_key_password_file: File = Field(None, description="file that holds it")
    kafka_verify_hostname: Switch = Field(True, description="refuse a certificate of Kafka for another host")

    redis_url: Annotated[str, REDIS] = Field("redis://127.0.0.1:6379/0", description="Redis that holds all state")
    redis_password: Secret = Field(None, description="password of the URL's user, so that it need not stand there")
    redis_password_file: File = Field(None, description="file that holds it")
    redis_ca: File = Field(None, description="certificates that Redis' is checked with; default: the system's")
    redis_cert: File = Field(None, description="certificate to show Redis")
    redis_key: File = Field(None, description="its private key")
    redis_key_password: Secret = Field(None, description="password of the key's file")
    redis_key_password_file: File = Field(None, description="file that holds it")
    redis_verify_hostname: Switch = Field(True, description="refuse a certificate of Redis for another host")

    @property
    def kafka_encrypted(self) -> bool:
        return self.kafka_security in {"SSL", "SASL_SSL"}

    @property
    def redis_encrypted(self) -> bool:
        return self.redis_url.startswith("rediss://")

    def disagreements(self) -> Iterator[str]:
        """What contradicts itself among these settings."""
        yield from self._kafka_user()
        yield from _certificate("KAFKA", self.kafka_cert, self.kafka_key)
        yield from _certificate("REDIS", self.redis_cert, self.redis_key)
        if not self.kafka_encrypted:
            yield from self._needless("KAFKA", f"{PREFIX}KAFKA_SECURITY is {self.kafka_security}, without TLS")
        if not self.redis_encrypted:
            yield from self._needless("REDIS", f"{PREFIX}REDIS_URL does not begin with rediss://")
        yield from self._twice()

    def _kafka_user(self) -> Iterator[str]:
        password = self.kafka_password or self.kafka_password_file
        given = {"KAFKA_SASL_MECHANISM": self.kafka_sasl_mechanism, "KAFKA_USERNAME": self.kafka_username}
        given["KAFKA_PASSWORD (or ..._FILE)"] = "set" if password else None
        named = f"{PREFIX}KAFKA_SECURITY={self.kafka_security}"
        if self.kafka_security.startswith("SASL_"):
            for name in (name for name, value in given.items() if value is None):
                yield f"{named} needs {PREFIX}{name}."
        else:
            for name in (name for name, value in given.items() if value is not None):
                yield f"{PREFIX}{name} has no use with {named}: SASL_SSL is TLS with a user."

    def _needless(self, server: Literal["KAFKA", "REDIS"], why: str) -> Iterator[str]:
        """Files for TLS where nothing is encrypted: somebody believes it is."""
        for part in ("CA", "CERT", "KEY"):
            if getattr(self, f"{server}_{part}".lower()) is not None:
                yield f"{PREFIX}{server}_{part} has no use: {why}."

    def _twice(self) -> Iterator[str]:
        for name in ("kafka_password", "kafka_key_password", "redis_password", "redis_key_password"):
            text, file = getattr(self, name), getattr(self, f"{name}_file")
            if text is not None and file is not None:
                yield f"{PREFIX}{name.upper()} and {PREFIX}{name.upper()}_FILE are both set: leave one out."
            key = name.replace("_password", "")
            if name.endswith("_key_password") and getattr(self, key) is None and (text or file) is not None:
                yield f"{PREFIX}{name.upper()} has no use without {PREFIX}{key.upper()}."
        if (self.redis_password or self.redis_password_file) and _has_password(self.redis_url):
            yield f"{PREFIX}REDIS_URL holds a password, and {PREFIX}REDIS_PASSWORD (or ..._FILE) another."

    def secret(self, attribute: str) -> str | None:
        """The text of a secret, from its setting or its file (one line break at the end is not part of it).

        Raises OSError and UnicodeDecodeError where the file cannot be read.
        """
        text: SecretStr | None = getattr(self, attribute)
        file: Path | None = getattr(self, f"{attribute}_file")
        if file is not None:
            return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        return None if text is None else text.get_secret_value()


def _certificate(server: str, cert: Path | None, key: Path | None) -> Iterator[str]:
    if (cert is None) != (key is None):
        there, missing = ("KEY", "CERT") if cert is None else ("CERT", "KEY")
        yield f"{PREFIX}{server}_{there} needs {PREFIX}{server}_{missing}."


def _has_password(url: str) -> bool:
    login, at, _ = url.partition("://")[2].rpartition("@")
    return (bool(at) and ":" in login) or "password=" in urlsplit(url).query
