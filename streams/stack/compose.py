"""Kafka and Redis through Docker Compose, where an engine answers."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from streams.stack import ports
from streams.stack.kafka_server import START_TIMEOUT_S, kafka_answers
from streams.stack.ports import LOOPBACK
from streams.stack.redis_server import redis_answers
from streams.stack.state import StackState
from streams.stack.waiting import POLL_S, Patience, Say, StackProblem, wait_until

COMPOSE_FILE = "docker-compose.yml"
SERVICES = ("kafka", "redis")


def compose_program() -> list[str] | None:
    """`docker compose` or `docker-compose`; None without it or without an engine that answers."""
    if shutil.which("docker") is None or not _works(["docker", "version"]):
        return None
    for program in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(program[0]) and _works([*program, "version"]):
            return program
    return None


def _works(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class ComposeStack:
    """The services kafka and redis of docker-compose.yml, published on 127.0.0.1."""

    def __init__(self, program: Sequence[str], folder: Path, *, kafka_port: int, redis_port: int, say: Say) -> None:
        self._program = [*program, "-f", str(folder / COMPOSE_FILE)]
        self._ports = (kafka_port, redis_port)
        self._say = say

    def start(self) -> StackState:
        """Bring both up, wait until they are healthy; raises StackProblem."""
        kafka_port, redis_port = (
            self._ports if self.running else (ports.pick(self._ports[0]), ports.pick(self._ports[1]))
        )
        published = {"KAFKA_PORT": str(kafka_port), "REDIS_PORT": str(redis_port)}
        self._run(["up", "--detach", *SERVICES], published)
        state = StackState("compose", f"{LOOPBACK}:{kafka_port}", f"redis://{LOOPBACK}:{redis_port}/0")
        for name, ready in (
            ("Redis", lambda: redis_answers(state.redis_url)),
            ("Kafka", lambda: kafka_answers(state.bootstrap)),
        ):
            wait_until(ready, what=f"{name} in its container", timeout_s=START_TIMEOUT_S, say=self._say)
        return state

    @property
    def running(self) -> bool:
        """True when both services run."""
        listed = subprocess.run(
            [*self._program, "ps", "--services", "--filter", "status=running"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return set(SERVICES) <= set(listed.stdout.split())

    def stop(self, *, delete: bool) -> None:
        """Stop everything of the file; `delete` removes the data as well."""
        self._run(["--profile", "demo", "down", *(["--volumes"] if delete else [])], {})

    def logs(self, service: str | None, lines: int) -> str:
        """The last lines of one or both services."""
        shown = [service] if service else list(SERVICES)
        command = [*self._program, "logs", "--no-color", "--tail", str(lines), *shown]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout

    def _run(self, arguments: Sequence[str], extra: dict[str, str]) -> None:
        patience = Patience("Docker Compose", self._say)
        child = subprocess.Popen(
            [*self._program, *arguments],
            env={**os.environ, **extra},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while True:
            try:
                said, _ = child.communicate(timeout=POLL_S)
                break
            except subprocess.TimeoutExpired:
                patience.tick()
        if child.returncode != 0:
            raise StackProblem(f"Docker Compose failed with exit code {child.returncode}:\n{said.strip()[-2000:]}")
