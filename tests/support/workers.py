"""Real workers on real brokers: start, kill, freeze and wake them; load a history; read back what the state holds."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from models.topics import INPUT_TOPICS, TOPICS, topic_name
from streams.engagement.profile import Profile
from streams.processing.book import Book, unpack_book
from streams.producer.plan import Planned
from streams.settings import Settings
from streams.stores.keys import TaskKeys, partition_of
from tests.support.brokers import Brokers, Names

ROOT = str(Path(__file__).parents[2])
"""Where the modules of other versions are found, from whatever folder."""
SLICE_RECORDS, LIVE_SLICE_RECORDS = 1_000, 20
BATCH_BYTES_MAX = 900_000
POLL_S = 0.05
STOP_WITHIN_S = 10
LOADED_WITHIN_S = 20
ASSIGNED = re.compile(r"generation (\d+): \d+ tasks assigned: \[([\d, ]*)\]")


class WorkerProcess:
    """One worker process with a log of its own; it ends by itself when this process is gone."""

    def __init__(self, number: int, settings: Settings, folder: Path, module: str = "streams.worker") -> None:
        self.number, self.log_path = number, folder / f"worker-{number}.log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(os.getpid())],
                cwd=folder,
                env=environ | {"PYTHONPATH": ROOT} | settings.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def joined(self) -> bool:
        """Whether the group has taken it in, with tasks or without."""
        return ASSIGNED.search(self.log) is not None

    @property
    def assigned(self) -> frozenset[int]:
        """The tasks it was assigned last, by its log."""
        found = ASSIGNED.findall(self.log)
        return frozenset(int(number) for number in found[-1][1].split(",") if number.strip()) if found else frozenset()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> float:
        """Seconds from SIGTERM to a clean exit."""
        begun = time.monotonic()
        self.process.terminate()
        code = self.process.wait(STOP_WITHIN_S + 5)
        assert code == 0, f"worker {self.number} ended with {code}:\n{self.log[-3_000:]}"
        return time.monotonic() - begun


class Deployment:
    """An application of its own on given brokers: topics with the producer's time, workers, and ways to look inside.

    settings: names without prefix -> text, as in the environment.
    """

    def __init__(self, brokers: Brokers, names: Names, folder: Path, **settings: str) -> None:
        self.brokers, self.names, self.folder = brokers, names, folder
        self.texts = {
            "KAFKA_BOOTSTRAP": brokers.bootstrap,
            "REDIS_URL": brokers.redis_url,
            "APP_ID": names.app_id,
            "TOPIC_PREFIX": names.topic_prefix,
            "TOPIC_TIMESTAMPS": "CreateTime",
            "PUNCTUATION": "off",  # at the log's end the clock of today would make the rest of the history late
            "TRIGGER_MAX_STALENESS": "0",
            "SESSION_TIMEOUT": "3s",
            "WEB_PORT": "0",
        } | settings
        self.settings = Settings.from_environ({}, self.texts)
        self.workers: list[WorkerProcess] = []
        self.loaded: Counter[int] = Counter()
        """Records loaded so far, by partition."""
        self._loading: list[Thread] = []
        self._failures: list[BaseException] = []
        self._create_topics()

    def _create_topics(self) -> None:
        """As the registry has them, but history older than any retention stays."""
        admin = KafkaAdminClient(bootstrap_servers=self.brokers.bootstrap)
        try:
            created = {}
            for suffix, topic in TOPICS.items():
                name = topic_name(self.names.topic_prefix, suffix)
                config = topic.config("CreateTime") | ({"retention.ms": "-1"} if topic.role == "input" else {})
                number = topic.partition_count(self.settings.partitions)
                created[name] = NewTopic(name, number, 1, topic_configs=config)
            admin.create_topics(list(created.values()))
            admin.wait_for_topics(list(created))
        finally:
            admin.close()

    # ------------------------------------------------------------------ workers

    def start(self, module: str = "streams.worker", **settings: str) -> WorkerProcess:
        """Start a worker, perhaps with settings of its own, or of another version."""
        own = Settings.from_environ({}, self.texts | settings)
        self.workers.append(WorkerProcess(len(self.workers), own, self.folder, module))
        return self.workers[-1]

    def close(self) -> None:
        """Kill what still runs; a loader whose broker is gone for good is left behind."""
        for worker in self.workers:
            if worker.running:
                worker.kill()
        for thread in self._loading:
            thread.join(LOADED_WITHIN_S)

    def logs(self, chars: int = 3_000) -> str:
        return "\n".join(f"--- worker {worker.number}\n{worker.log[-chars:]}" for worker in self.workers)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 60) -> float:
        """Seconds until the condition held; fails with the workers' logs."""
        begun = time.monotonic()
        while not condition():
            for failure in self._failures:
                raise failure
            if time.monotonic() - begun > timeout_s:
                read = f"read {self.records_read()} of {self.loaded}"
                pytest.fail(f"{what}: not within {timeout_s} s; {read}\n{self.logs()}")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def wait_shared(self, *workers: WorkerProcess) -> float:
        """Seconds until these workers, and no others, share all tasks, each with some."""

        def shared() -> bool:
            for worker in workers:
                assert worker.running, f"worker {worker.number} ended:\n{worker.log[-3_000:]}"
            parts = [worker.assigned for worker in workers]
            tasks = sorted(task for part in parts for task in part)
            return all(parts) and tasks == list(range(self.settings.partitions))

        return self.wait("all tasks are shared", shared)

    def wait_read(self, timeout_s: float = 300) -> float:
        """Seconds until everything that was loaded is read and committed."""
        return self.wait("everything is read", lambda: self.records_read() == self.loaded, timeout_s)

    def wait_moved(self, tasks: Iterable[int], before: Counter[int] | None = None, timeout_s: float = 90) -> float:
        """Seconds until each of these tasks has read on (since `before`), or has nothing left to read."""
        before, tasks = before or self.records_read(), sorted(tasks)

        def moved() -> bool:
            now = self.records_read()
            return bool(now) and all(now[task] > before[task] or now[task] >= self.loaded[task] for task in tasks)

        return self.wait(f"tasks {tasks} go on", moved, timeout_s)

    # ------------------------------------------------------------------ history

    def load(self, records: Iterable[Planned], per_s: float | None = None) -> float:
        """Append records with the time of their sending, keyless ones anywhere; returns the seconds it took.

        per_s 0: each when its time has come, by the clock.
        """
        begun = time.monotonic()
        asyncio.run(self._load(records, per_s))
        return time.monotonic() - begun

    def load_meanwhile(self, records: Iterable[Planned], per_s: float) -> Thread:
        """The same in the background; `wait` fails if it does."""

        def run() -> None:
            try:
                self.load(records, per_s)
            except BaseException as error:  # noqa: BLE001 - raised again by `wait`
                self._failures.append(error)

        self._loading.append(Thread(target=run, name="loader", daemon=True))
        self._loading[-1].start()
        return self._loading[-1]

    async def _load(self, records: Iterable[Planned], per_s: float | None) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self.brokers.bootstrap, enable_idempotence=True, max_batch_size=BATCH_BYTES_MAX
        ) as producer:
            begun, sent, rest = time.monotonic(), 0, iter(records)
            size = SLICE_RECORDS if per_s is None else max(LIVE_SLICE_RECORDS, int(per_s / 10))
            while part := list(islice(rest, size)):
                if per_s == 0:
                    await asyncio.sleep(max(0.0, part[-1].send_ms / 1_000 - time.time()))
                places = await self._send(producer, part)
                self.loaded.update(places)
                sent += len(part)
                if per_s:
                    await asyncio.sleep(max(0.0, begun + sent / per_s - time.monotonic()))

    async def _send(self, producer: Any, records: Iterable[Planned]) -> Counter[int]:
        """Send records in batches, in order within each partition; returns how many went to which partition."""
        places: Counter[int] = Counter()
        batches: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for number, record in enumerate(records):
            topic = topic_name(self.names.topic_prefix, record.topic)
            tasks = self.settings.partitions
            partition = number % tasks if record.key is None else _place(record.key, tasks)
            places[partition] += 1
            row = batches[topic, partition]
            if not row or not _added(row[-1], record):
                row.append(producer.create_batch())
                assert _added(row[-1], record)
        sent = []
        for (topic, partition), row in batches.items():
            for batch in row:
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)
        return places

    # ------------------------------------------------------------------ what the state holds

    def _redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.brokers.redis_url, socket_timeout=5, socket_connect_timeout=2, protocol=2)

    def books(self) -> dict[int, Book]:
        """The book of each task that has begun, as of its last commit; empty while Redis is away."""
        with self._redis() as client:
            pipeline = client.pipeline(transaction=False)
            for task in range(self.settings.partitions):
                pipeline.hget(TaskKeys(self.names.app_id, task).main, "meta")
            try:
                metas = pipeline.execute()
            except (redis.RedisError, OSError):
                return {}
        return {task: unpack_book(meta) for task, meta in enumerate(metas) if meta is not None}

    def records_read(self) -> Counter[int]:
        """How many records each task has accounted for, but for punctuation."""
        return Counter(
            {
                task: sum(sum(topic.account().values()) - topic.account()["control"] for topic in book.topics.values())
                for task, book in self.books().items()
            }
        )

    def read_account(self) -> dict[tuple[str, int], Mapping[str, int]]:
        """(topic, partition) -> how its records ended."""
        return {
            (name, task): topic.account() for task, book in self.books().items() for name, topic in book.topics.items()
        }

    def read_customers(self) -> dict[str, dict[str, Any]]:
        """Every customer's view, from the packed profiles of all tasks."""
        model = self.settings.rules().score_model
        packed: dict[str, list[bytes | None]] = {}
        with self._redis() as client:
            for task in range(self.settings.partitions):
                pipeline = client.pipeline(transaction=False)
                for key in TaskKeys(self.names.app_id, task).states:
                    pipeline.hgetall(key)
                for fields in pipeline.execute():
                    for field, value in fields.items():
                        entry = packed.setdefault(field[2:].decode(), [None, None])
                        entry[field[:2] == b"c:"] = value
        return {customer: Profile.unpack(customer, *fields).view(model) for customer, fields in packed.items()}

    def read_accumulators(self) -> list[dict[str, int]]:
        """The metric accumulators of each task."""
        with self._redis() as client:
            return [
                {field.decode(): int(value) for field, value in fields.items()}
                for task in range(self.settings.partitions)
                for fields in [client.hgetall(TaskKeys(self.names.app_id, task).accumulators)]
            ]

    def committed(self) -> dict[int, int]:
        """The group's committed offsets of each task, all input topics added up."""
        found: Counter[int] = Counter()
        for (_, partition), offset in self.committed_places().items():
            found[partition] += offset
        return found

    def committed_places(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the group's committed offset; input topics alone have any."""
        admin = KafkaAdminClient(bootstrap_servers=self.brokers.bootstrap)
        try:
            offsets = admin.list_group_offsets([self.names.group])[self.names.group]
        finally:
            admin.close()
        inputs = {topic_name(self.names.topic_prefix, suffix) for suffix in INPUT_TOPICS}
        assert {place.topic for place in offsets} <= inputs
        return {(place.topic, place.partition): offset.offset for place, offset in offsets.items()}

    def input_ends(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> log end, of all input topics."""
        return {
            (topic_name(self.names.topic_prefix, suffix), partition): end
            for suffix in INPUT_TOPICS
            for partition, end in self.ends(suffix).items()
        }

    def ends(self, suffix: str) -> dict[int, int]:
        """Partition -> log end of a topic."""
        name = topic_name(self.names.topic_prefix, suffix)
        consumer = KafkaConsumer(bootstrap_servers=self.brokers.bootstrap, group_id=None)
        try:
            places = [TopicPartition(name, partition) for partition in consumer.partitions_for_topic(name) or ()]
            return {place.partition: end for place, end in consumer.end_offsets(places).items()}
        finally:
            consumer.close()


@lru_cache(maxsize=65_536)
def _place(key: bytes, tasks: int) -> int:
    return partition_of(key.decode(), tasks)


def _added(batch: Any, record: Planned) -> bool:
    """Whether the record went into the batch; it does not where the batch is full."""
    return batch.append(timestamp=record.send_ms, key=record.key, value=record.value) is not None
