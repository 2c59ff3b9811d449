"""Kafka and Redis in containers, with the handles of streams.stack.local.LocalStack: kill, start, pause, resume."""

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Self

from testcontainers.core.container import DockerContainer

from streams.stack import ports
from streams.stack.kafka_server import START_TIMEOUT_S, kafka_answers
from streams.stack.redis_server import redis_answers
from streams.stack.waiting import StackProblem, wait_until

KAFKA_IMAGE = os.environ.get("PULSELINE_TEST_KAFKA_IMAGE", "apache/kafka:4.1.0")
REDIS_IMAGE = os.environ.get("PULSELINE_TEST_REDIS_IMAGE", "redis:8.2-alpine")
PULL_TIMEOUT_S = 300


def engine_answers() -> bool:
    """True when a container engine answers and has, or can pull, both images."""
    if shutil.which("docker") is None:
        return False
    try:
        if subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=10).returncode != 0:
            return False
        return all(_has_image(image) for image in (KAFKA_IMAGE, REDIS_IMAGE))
    except subprocess.TimeoutExpired:
        return False


def _has_image(image: str) -> bool:
    if (
        subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False, timeout=10).returncode
        == 0
    ):
        return True
    return (
        subprocess.run(
            ["docker", "pull", "-q", image], capture_output=True, check=False, timeout=PULL_TIMEOUT_S
        ).returncode
        == 0
    )


class Server:
    """A container that may be killed, frozen and started again on the same data and the same port."""

    def __init__(self, container: DockerContainer, port: int) -> None:
        self.container = container.with_bind_ports(port, port)
        self.port = port
        self._created = False

    def launch(self) -> None:
        if not self._created:
            self.container.start()
            self._created = True
            return
        self._docker().start()

    def kill(self) -> None:
        self._docker().kill()
        self._docker().wait()

    def pause(self) -> None:
        self._docker().pause()

    def resume(self) -> None:
        self._docker().unpause()

    def stop(self) -> None:
        if self._created:
            self.container.stop()

    def wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        wait_until(ready, what=f"{name} in a container", timeout_s=START_TIMEOUT_S, check=self._ensure_running)

    def _ensure_running(self) -> None:
        docker = self._docker()
        docker.reload()
        if docker.status == "exited":
            raise StackProblem(
                f"{self.container.image} ended while starting:\n{docker.logs(tail=30).decode(errors='replace')}"
            )

    def _docker(self):
        return self.container.get_wrapped_container()


class ApacheKafkaContainer(Server):
    """The official image, or any that reads its settings from KAFKA_* in the same way."""

    def __init__(self) -> None:
        port = ports.pick()
        self.bootstrap = f"{ports.LOOPBACK}:{port}"
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            # Clients on the host use the published port; the broker talks to itself on a listener of its own.
            "KAFKA_LISTENERS": f"HOST://0.0.0.0:{port},BROKER://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093",
            "KAFKA_ADVERTISED_LISTENERS": f"HOST://{self.bootstrap},BROKER://127.0.0.1:19092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:19093",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000",
            "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
        }
        super().__init__(DockerContainer(KAFKA_IMAGE).with_envs(**settings), port)

    def start(self) -> None:
        self.launch()
        self.wait_for("Kafka", lambda: kafka_answers(self.bootstrap))


class RedisContainer(Server):
    """Redis with an append-only file and without eviction."""

    def __init__(self) -> None:
        port = ports.pick()
        self.url = f"redis://{ports.LOOPBACK}:{port}/0"
        command = (
            f"redis-server --port {port} --appendonly yes --appendfsync everysec --maxmemory-policy noeviction "
            "--protected-mode no --repl-diskless-sync-delay 0"
        )
        super().__init__(DockerContainer(REDIS_IMAGE).with_command(command), port)

    def start(self) -> None:
        self.launch()
        self.wait_for("Redis", lambda: redis_answers(self.url))


class ContainerStack:
    """A Kafka and a Redis in containers of their own."""

    def __init__(self) -> None:
        self.kafka = ApacheKafkaContainer()
        self.redis = RedisContainer()

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap

    @property
    def redis_url(self) -> str:
        return self.redis.url

    def start(self) -> Self:
        self.redis.start()
        self.kafka.start()
        return self

    def stop(self) -> None:
        self.kafka.stop()
        self.redis.stop()
