"""A real Faust worker with the real transport around a fake processor: `python -m tests.support.fake_worker CONFIG`.

The fake keeps its state in SQLite: for each task the ver of its owner, its positions, and one row for every record ever
applied and committed, which the database refuses to hold twice. What it sees goes into a trace, one JSON object a line.
"""

import asyncio
import json
import random
import sqlite3
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from streams.agents import register_agents
from streams.errors import Fenced, LogUnavailable, Retriable
from streams.processing.ports import OutRecord, Run
from streams.settings import Settings
from streams.transport.application import App, Worker, faust_app
from streams.transport.log import KafkaLog
from streams.transport.wiring import Wiring

SCHEMA = """
CREATE TABLE IF NOT EXISTS task (p INTEGER PRIMARY KEY, ver TEXT, positions TEXT);
CREATE TABLE IF NOT EXISTS applied
    (p INTEGER, topic TEXT, "offset" INTEGER, value TEXT, PRIMARY KEY (p, topic, "offset"));
CREATE TABLE IF NOT EXISTS fence (p INTEGER);
"""


@dataclass(slots=True)
class FakeTask:
    claim: str
    ver: str
    positions: dict[str, int]
    pending: list[tuple[str, int, str]] = field(default_factory=list)
    loop: asyncio.Task[None] | None = None


class FakeProcessor:
    """What the transport sees of a Processor, with its shape and its promises.

    trouble: claims_fail (each task's first n claims fail), claim_s and apply_s (longest random delay of each),
    publish_to (topic that gets one record per applied record).
    """

    def __init__(self, folder: Path, log: Any, topics: Collection[str], trouble: dict[str, Any]) -> None:
        self.db = sqlite3.connect(folder / "state.db", timeout=20, isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=WAL;" + SCHEMA)
        self.log, self.topics, self.trouble = log, tuple(topics), trouble
        self.tasks: dict[int, FakeTask] = {}
        self.failed: dict[int, int] = {}
        self.trace_file = (folder / f"trace-{token_hex(4)}.jsonl").open("a", buffering=1)
        self.on_fenced: Any = None
        self.on_fatal: Any = None

    def trace(self, what: str, **fields: Any) -> None:
        self.trace_file.write(json.dumps({"what": what, **fields}) + "\n")

    async def claim(self, partition: int) -> dict[str, int]:
        self.forget((partition,))
        await self.log.confirmed()
        await asyncio.sleep(random.random() * self.trouble.get("claim_s", 0.0))
        if self.failed.get(partition, 0) < self.trouble.get("claims_fail", 0):
            self.failed[partition] = self.failed.get(partition, 0) + 1
            self.trace("claim_failed", p=partition)
            raise LogUnavailable("made to fail")
        committed = await self.log.committed(partition)
        bounds = await self.log.bounds(partition)
        ver = token_hex(8)
        self.db.execute("BEGIN IMMEDIATE")
        row = self.db.execute("SELECT positions FROM task WHERE p = ?", (partition,)).fetchone()
        positions = json.loads(row[0]) if row else {topic: bounds[topic][0] for topic in self.topics}
        self.db.execute("INSERT OR REPLACE INTO task VALUES (?, ?, ?)", (partition, ver, json.dumps(positions)))
        self.db.execute("COMMIT")
        task = self.tasks[partition] = FakeTask(claim=ver, ver=ver, positions=positions)
        task.loop = asyncio.create_task(self._commits(partition, task))
        self.trace("claimed", p=partition, claim=ver, positions=positions, committed=committed)
        return dict(positions)

    def claim_of(self, partition: int) -> str | None:
        task = self.tasks.get(partition)
        return task.claim if task else None

    def reached(self, partition: int) -> dict[str, tuple[int, int]]:
        return {}

    async def apply(self, run: Run) -> None:
        await asyncio.sleep(random.random() * self.trouble.get("apply_s", 0.0))
        task = self.tasks.get(run.partition)
        if task is None or task.claim != run.claim:
            self.trace("stale", p=run.partition, topic=run.topic, claim=run.claim)
            return
        for record in run.records:
            if record.offset != task.positions[run.topic]:
                self.trace(
                    "disorder", p=run.partition, topic=run.topic, at=task.positions[run.topic], got=record.offset
                )
            task.positions[run.topic] = record.offset + 1
            task.pending.append((run.topic, record.offset, (record.value or b"").decode()))

    async def _commits(self, partition: int, task: FakeTask) -> None:
        try:
            while self.tasks.get(partition) is task:
                await asyncio.sleep(0.2)
                await self._commit(partition, task)
        except Fenced as reason:
            self.trace("fenced", p=partition, why=str(reason))
            self.forget((partition,))
            self.on_fenced(partition, reason)
        except asyncio.CancelledError:
            raise
        except Retriable as reason:
            self.forget((partition,))
            self.on_fenced(partition, reason)
        except Exception as error:  # noqa: BLE001 - as the real one does
            self.on_fatal(error)

    async def _commit(self, partition: int, task: FakeTask) -> None:
        if self.tasks.get(partition) is not task:
            return
        if self.db.execute("SELECT 1 FROM fence WHERE p = ?", (partition,)).fetchone():
            self.db.execute("DELETE FROM fence WHERE p = ?", (partition,))
            raise Fenced("asked for by the test")
        pending, task.pending, positions = task.pending, [], dict(task.positions)
        self._write(partition, task, pending, positions)
        if pending and "publish_to" in self.trouble:
            topic = self.trouble["publish_to"]
            await self.log.publish([OutRecord(topic, partition, None, value.encode(), ()) for _, _, value in pending])
        await self.log.commit_offsets(partition, positions)

    def _write(self, p: int, task: FakeTask, pending: list[tuple[str, int, str]], positions: dict[str, int]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            (ver,) = self.db.execute("SELECT ver FROM task WHERE p = ?", (p,)).fetchone()
            if ver != task.ver:
                raise Fenced("another ver")  # noqa: TRY301
            self.db.executemany("INSERT INTO applied VALUES (?, ?, ?, ?)", [(p, *row) for row in pending])
            self.db.execute("UPDATE task SET positions = ? WHERE p = ?", (json.dumps(positions), p))
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    async def release(self, partitions: Collection[int], deadline_ms: int) -> None:
        self.trace("released", ps=sorted(p for p in partitions if p in self.tasks), deadline_ms=deadline_ms)
        for partition in partitions:
            task = self.tasks.get(partition)
            if task is not None:
                try:
                    await self._commit(partition, task)
                except Retriable as reason:
                    self.trace("last_commit_failed", p=partition, why=str(reason))
        self.forget(partitions)

    def forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            task = self.tasks.pop(partition, None)
            if task is not None and task.loop is not None and task.loop is not asyncio.current_task():
                task.loop.cancel()

    async def stop(self) -> None:
        self.forget(list(self.tasks))


def build(config: dict[str, Any]) -> App:
    settings = Settings.from_environ({}, config["settings"])
    app = faust_app(settings)
    topics = tuple(config["topics"])
    log = KafkaLog(app, inputs=topics, timeout_ms=settings.request_timeout_ms)
    processor: Any = FakeProcessor(Path(config["folder"]), log, topics, config.get("trouble", {}))

    async def prepare() -> None:
        processor.trace("prepared")

    app.wiring = Wiring(
        processor=processor,
        bootstrap=settings.kafka_bootstrap,
        inputs=topics,
        topics=dict.fromkeys(topics, settings.partitions) | config.get("outputs", {}),
        prepare=prepare,
        fatal=app.fatal,
        run_records_max=settings.run_records_max,
        session_timeout_ms=settings.session_timeout_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        request_timeout_ms=settings.request_timeout_ms,
        shutdown_timeout_ms=settings.shutdown_timeout_ms,
    )
    processor.on_fatal = app.fatal
    processor.on_fenced = app.tables.on_fenced
    register_agents(app, processor, topics)
    return app


if __name__ == "__main__":
    Worker(build(json.loads(sys.argv[1])), loglevel="INFO", quiet=True).execute_from_commandline()
