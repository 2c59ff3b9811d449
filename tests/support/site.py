"""A deployment as its users have it: topics by the registry, programs started by their command lines."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient

from models.topics import INPUT_TOPICS
from streams.cli.tail import read_through, records_in
from streams.cli.topics import apply_topics
from streams.producer.client import EngagementProducer
from tests.support.brokers import Brokers, Names
from tests.support.workers import Deployment, WorkerProcess

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
WORKER = ("pulseline", "worker")


class Program(WorkerProcess):
    """One process that was started by a command line, with all it says in one log."""

    def __init__(self, number: int, command: Sequence[str], environ: dict[str, str], folder: Path) -> None:
        self.number, self.log_path = number, folder / f"program-{number}.log"
        program = [sys.executable, *command[1:]] if command[0] == "python" else [str(BIN / command[0]), *command[1:]]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                program, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ended(self, timeout_s: float = 40) -> int:
        """The exit code, once it ended by itself."""
        return self.process.wait(timeout_s)


class Site(Deployment):
    """Two tasks, real clocks; topics exist from the start unless `topics` is False.

    settings: names without prefix -> text, as in the environment.
    """

    def __init__(self, brokers: Brokers, names: Names, folder: Path, *, topics: bool = True, **settings: str) -> None:
        self._with_topics = topics
        defaults = {
            "PARTITIONS": "2",
            "PUNCTUATION": "on",
            "TOPIC_TIMESTAMPS": "LogAppendTime",
            "COMMIT_INTERVAL": "200ms",
        }
        super().__init__(brokers, names, folder, **defaults | settings)
        self.sent = 0

    def _create_topics(self) -> None:
        if self._with_topics:
            apply_topics(self.settings)

    def environ(self, **settings: str) -> dict[str, str]:
        """The environment of a program of this deployment."""
        return self.bare_environ(self.folder) | {
            f"PULSELINE_{name}": text for name, text in (self.texts | settings).items()
        }

    @staticmethod
    def bare_environ(folder: Path) -> dict[str, str]:
        """The environment of a program that finds neither settings nor a running stack."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PULSELINE_")}
        return kept | {"PULSELINE_STACK_DIR": str(folder / "stack"), "PYTHONPATH": str(ROOT)}

    def run(self, *command: str, ask: str = "", **settings: str) -> Program:
        """Start a program of the venv, by default a worker; `ask` is for tests.support.asking_worker."""
        environ = self.environ(**settings) | {"ASK": ask}
        program = Program(len(self.workers), command or WORKER, environ, self.folder)
        self.workers.append(program)
        return program

    def call(self, *command: str, **settings: str) -> Program:
        """Run a program to its end."""
        program = self.run(*command, **settings)
        program.ended(60)
        return program

    def end(self) -> None:
        """Stop what still runs, in order where it lets itself be stopped."""
        for worker in self.workers:
            if worker.running:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(15)
            except subprocess.TimeoutExpired:
                worker.kill()

    # ------------------------------------------------------------------ events in, records out

    def producer(self, **options: Any) -> EngagementProducer:
        return EngagementProducer(self.brokers.bootstrap, topic_prefix=self.names.topic_prefix, **options)

    def send(self, count: int, producer: EngagementProducer | None = None) -> None:
        """Send page views of as many customers, c-0, c-1, ..., and wait until Kafka has them."""
        sending = producer or self.producer()
        for number in range(count):
            sending.send(type="page_viewed", customer_id=f"c-{number}", url="https://shop.example/")
        assert sending.flush(60) == []
        self.sent += count
        if producer is None:
            sending.close()

    def outputs(self, suffix: str) -> list[Any]:
        """All records of an output topic, as kafka-python reads them."""
        return [record for _, record in read_through(self.settings, (suffix,))]

    def account(self) -> Counter[str]:
        """How the records of all input topics ended."""
        found: Counter[str] = Counter()
        for how in self.read_account().values():
            found.update(how)
        return found

    def served(self) -> bool:
        """Whether every event that `send` sent is applied, and nothing else was."""
        return self.account()["applied"] == self.sent

    def wait_served(self, timeout_s: float = 60) -> None:
        self.wait("every event is applied", self.served, timeout_s)

    def wait_claimed(self, program: Program) -> None:
        """Wait until records flow to this worker."""
        self.wait("all tasks are claimed", lambda: "are claimed; records flow" in program.log or not program.running)
        assert program.running, program.log[-3_000:]

    def members(self) -> int:
        """How many members the consumer group has."""
        admin = KafkaAdminClient(bootstrap_servers=self.brokers.bootstrap)
        try:
            return len(admin.describe_groups([self.names.group])[self.names.group]["members"])
        finally:
            admin.close()

    def in_log(self) -> int:
        """How many records the input topics hold."""
        return sum(records_in(self.settings, INPUT_TOPICS).values())


def stop(program: WorkerProcess) -> tuple[int, float]:
    """(exit code, seconds) of a SIGTERM."""
    begun = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    return program.process.wait(25), time.monotonic() - begun
