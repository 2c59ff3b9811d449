"""The real brokers that integration and chaos tests run against. One that cannot be had is a failure, never a skip."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kafka.admin import KafkaAdminClient, NewTopic

from streams.stack.local import LocalStack

TOOLS = Path(__file__).parents[2] / ".pulseline" / "tools"
THROUGH = os.environ.get("PULSELINE_TEST_BROKERS", "auto")  # auto, containers or local


class Server(Protocol):
    """A broker that a test may break; `start` waits until it serves again, on the same port and data."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Brokers(Protocol):
    """A real Kafka and a real Redis."""

    @property
    def bootstrap(self) -> str: ...
    @property
    def redis_url(self) -> str: ...
    @property
    def kafka(self) -> Server: ...
    @property
    def redis(self) -> Server: ...


@contextmanager
def run_brokers() -> Iterator[Brokers]:
    """Brokers of one's own on free ports, in containers where an engine answers, else as processes; gone afterwards."""
    if THROUGH != "local":
        from tests.support.containers import ContainerStack, engine_answers

        if THROUGH == "containers" or engine_answers():
            stack = ContainerStack()
            try:
                yield stack.start()
            finally:
                stack.stop()
            return
    with tempfile.TemporaryDirectory(prefix="pulseline-test-") as folder, LocalStack(folder, tools_dir=TOOLS) as local:
        yield local


@dataclass(frozen=True, slots=True)
class Names:
    """Names no other test uses: topics start with `topic_prefix`; `app_id` is the group and prefix of Redis keys."""

    topic_prefix: str
    app_id: str

    @classmethod
    def fresh(cls) -> "Names":
        mark = secrets.token_hex(4)
        return cls(topic_prefix=f"t{mark}", app_id=f"app{mark}")

    def topic(self, name: str) -> str:
        return f"{self.topic_prefix}.{name}"

    @property
    def group(self) -> str:
        return self.app_id

    @property
    def key_prefix(self) -> str:
        return self.app_id


def create_topics(bootstrap: str, *topics: str, partitions: int = 1, **configs: str) -> None:
    """Create topics and wait until every partition has a leader; auto-creation is off in every broker here."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs) for topic in topics])
        admin.wait_for_topics(list(topics))
    finally:
        admin.close()
