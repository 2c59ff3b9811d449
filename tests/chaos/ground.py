"""What a scenario stands on: a Kafka, a Redis that may be lost, an address that can be moved, a full disk."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Self

import redis

from streams.stack.local import LocalStack
from streams.stack.ports import pick
from streams.stack.redis_server import RedisServer
from streams.stack.tools import find_redis
from tests.support.brokers import TOOLS, Brokers, Server
from tests.support.proxy import Proxy

DISK_MB = 512
PAGE = 4_096
REPLICA_READY_S = 30


class Gate:
    """A proxy in a thread of its own, for code that is not asynchronous."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._proxy = Proxy(url)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(10)
        self.url = self._proxy.url
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def order(self, act: Callable[[Proxy], None]) -> None:
        """Let the proxy do something, and wait until it has."""

        async def carry_out() -> None:
            act(self._proxy)

        asyncio.run_coroutine_threadsafe(carry_out(), self._loop).result(10)


class Ground:
    """Kafka as given; one Redis of the scenario's own, which the workers reach through a gate.

    redis_url is that of the server itself, so that a slow gate does not slow the judge.
    """

    def __init__(self, brokers: Brokers, folder: Path, stack: ExitStack) -> None:
        self._brokers, self._folder, self._stack = brokers, folder, stack
        self._servers = 0
        self.redis = self.new_redis()
        self.gate = stack.enter_context(Gate(self.redis.url))

    @property
    def bootstrap(self) -> str:
        return self._brokers.bootstrap

    @property
    def kafka(self) -> Server:
        return self._brokers.kafka

    @property
    def redis_url(self) -> str:
        return self.redis.url

    def new_redis(self) -> RedisServer:
        """Another empty Redis, running."""
        server = RedisServer(
            self._folder / f"redis-{self._servers}",
            program=find_redis(TOOLS),
            port=pick(),
            options=("--loglevel", "notice"),
        )
        self._servers += 1
        self._stack.callback(server.kill)
        server.start()
        return server

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, socket_timeout=5)

    def fall_over_to(self, replica: RedisServer) -> None:
        """Make a replica the primary, kill the old one and move the workers' address."""
        with redis.Redis.from_url(replica.url) as client:
            client.replicaof("NO", "ONE")
        self.gate.order(lambda proxy: proxy.retarget(replica.url))
        self.redis.kill()
        self.redis = replica


class Replica:
    """A second Redis that follows the first one through a gate; `lag` holds back what comes after."""

    def __init__(self, ground: Ground, stack: ExitStack) -> None:
        self.server = ground.new_redis()
        self._gate = stack.enter_context(Gate(ground.redis.url))
        port = int(self._gate.url.rpartition(":")[2].partition("/")[0])
        with redis.Redis.from_url(self.server.url) as client:
            client.replicaof("127.0.0.1", port)
            deadline = time.monotonic() + REPLICA_READY_S
            while client.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < deadline, "the replica does not follow"
                time.sleep(0.05)

    def lag(self) -> None:
        self._gate.order(Proxy.stall)


class Disk:
    """A small file system of its own in memory, which `fill` leaves without a free byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        free = os.statvfs(self.folder)
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            # Others write meanwhile: most of it at once, the rest until it is refused.
            os.posix_fallocate(file.fileno(), 0, max(PAGE, free.f_bavail * free.f_frsize - (1 << 20)))
            file.seek(0, os.SEEK_END)
            while file.write(bytes(PAGE)):
                pass

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, *, megabytes: int = DISK_MB) -> Iterator[Disk]:
    """Mount one; needs the right to mount, which root has."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount() -> bool:
    return os.geteuid() == 0


@contextmanager
def kafka_in(folder: Path) -> Iterator[Brokers]:
    """A Kafka (and an idle Redis) with all its data in this folder."""
    with LocalStack(folder, tools_dir=TOOLS) as stack:
        running: Any = stack
        yield running
