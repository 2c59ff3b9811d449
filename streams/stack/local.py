"""Kafka and Redis as plain processes of this machine, without a container engine."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.stack import ports, tools
from streams.stack.daemons import Daemon
from streams.stack.kafka_server import QUICK_JVM, KafkaServer
from streams.stack.redis_server import RedisServer
from streams.stack.state import StackState, clear_state, read_state, write_state
from streams.stack.waiting import Say, StackProblem, silent

START_ATTEMPTS = 3


class LocalStack:
    """A Kafka and a Redis with their data in `data_dir`, on preferred ports where free.

    `tools_dir` keeps what is fetched (Kafka's jars, Redis) and may be shared; preferred port None: any free one.
    `start` adopts servers that an earlier process left running from the same folder. The servers outlive this process
    unless `stop` is called.
    """

    kafka: KafkaServer
    redis: RedisServer

    def __init__(
        self,
        data_dir: Path | str,
        *,
        tools_dir: Path | str | None = None,
        kafka_port: int | None = None,
        redis_port: int | None = None,
        jvm: Sequence[str] = QUICK_JVM,
        redis_options: Sequence[str] = (),
        say: Say = silent,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.tools_dir = Path(tools_dir).absolute() if tools_dir is not None else self.data_dir / "tools"
        self._preferred = (kafka_port, redis_port)
        self._jvm = jvm
        self._redis_options = redis_options
        self._say = say

    @property
    def bootstrap(self) -> str:
        """host:port of Kafka."""
        return self.kafka.bootstrap

    @property
    def redis_url(self) -> str:
        """URL of Redis, database 0."""
        return self.redis.url

    @property
    def state(self) -> StackState:
        """The addresses of both."""
        return StackState("local", self.bootstrap, self.redis_url)

    @property
    def any_running(self) -> bool:
        """True when a server runs from this folder, whoever started it."""
        return any(Daemon(name, self.data_dir / name).pid is not None for name in ("kafka", "redis"))

    def start(self) -> Self:
        """Bring both up and wait until they serve; raises StackProblem saying what is missing."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        java, jars, redis_program = self._find_tools()
        for attempt in range(1, START_ATTEMPTS + 1):
            self._place(java, jars, redis_program)
            try:
                self._launch()
                break
            except StackProblem as problem:
                # Somebody took a port between our look and the server's start.
                if "Address already in use" not in str(problem) or attempt == START_ATTEMPTS:
                    raise
                self.stop()
        write_state(self.data_dir, self.state)
        return self

    def stop(self) -> None:
        """Stop both in order; their data stays."""
        if not hasattr(self, "kafka"):
            self._place("java", self.tools_dir, "redis-server")
        for server in (self.kafka, self.redis):
            server.stop()
        clear_state(self.data_dir)

    def wipe(self) -> None:
        """Stop both and delete their data; what was fetched stays."""
        self.stop()
        for server in (self.kafka, self.redis):
            shutil.rmtree(server.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _find_tools(self) -> tuple[str, Path, str]:
        java = tools.find_java()
        with ThreadPoolExecutor(2) as pool:
            jars = pool.submit(tools.kafka_jars, self.tools_dir, self._say)
            redis_program = pool.submit(tools.find_redis, self.tools_dir, self._say)
            return java, jars.result(), redis_program.result()

    def _place(self, java: str, jars: Path, redis_program: str) -> None:
        """Choose the ports: those of a stack that runs from this folder, else the preferred, else free ones."""
        state = read_state(self.data_dir)
        kafka_port, redis_port = self._preferred
        if state is not None:
            kafka_port, redis_port = _port(state.bootstrap), _port(state.redis_url.removesuffix("/0"))
        self.kafka = KafkaServer(self.data_dir / "kafka", java=java, jars=jars, port=kafka_port or 0, jvm=self._jvm)
        self.redis = RedisServer(
            self.data_dir / "redis", program=redis_program, port=redis_port or 0, options=self._redis_options
        )
        if self.kafka.daemon.pid is None:
            self.kafka.port = ports.pick(kafka_port)
        if self.redis.daemon.pid is None:
            self.redis.port = ports.pick(redis_port)

    def _launch(self) -> None:
        self.kafka.launch()
        self.redis.launch()
        self.redis.wait_ready(self._say)
        self.kafka.wait_ready(self._say)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
