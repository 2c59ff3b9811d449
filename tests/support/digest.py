"""A digest of all that a task writes and publishes over harsh histories: `make compiled` compares two builds by it."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from random import Random
from typing import Any

from streams.engagement import profile
from streams.processing.book import Book, TopicBook
from streams.processing.plan import Plan
from streams.processing.ports import LogRecord, Run, Stored
from streams.processing.task import Task
from streams.producer.plan import Planned, plan
from tests.support.history import harsh_script, history_world

EVENTS = 20_000
RUN_MAX = 700


class Folding:
    """One task, what is stored of its customers, and the digest of its commits."""

    def __init__(self, rules: Plan, seed: int) -> None:
        book = Book(0, {topic: TopicBook(0, 0) for topic in rules.inputs})
        self.task = Task(rules, 0, ver="", stored=Stored("", b""), book=book, committed={})
        self.hot: dict[str, bytes] = {}
        self.cold: dict[str, bytes | None] = {}
        self.rng, self.digest = Random(seed), sha256()

    def fold(self, runs: Iterable[Run]) -> str:
        """Apply the runs, committing and dropping the profiles from memory now and then."""
        for run in runs:
            read = self.task.read(run)
            missing = self.task.missing(read)
            self.task.take({customer: (self.hot.get(customer), self.cold.get(customer)) for customer in missing})
            self.task.apply(read)
            if self.rng.random() < 0.3:
                self.commit()
        self.commit()
        return self.digest.hexdigest()

    def commit(self) -> None:
        cut = self.task.cut("", 1_760_000_000_000)
        if cut is None:
            return
        commit = cut.commit
        self.hot.update(commit.hot)
        self.cold.update(commit.cold)
        changed = (commit.hot, commit.cold, commit.timers, commit.sessions, commit.accumulators)
        parts: list[Any] = [sorted(change.items()) for change in changed]
        self.digest.update(repr([*parts, commit.meta, commit.outputs, cut.outputs, cut.rejected]).encode())
        self.task.written(cut)
        self.task.confirmed(cut)
        if self.rng.random() < 0.5:
            self.task.profiles.clear()


def runs_of(records: Iterable[Planned], rng: Random) -> Iterator[Run]:
    """The records as runs of random length, topics interleaved."""
    logs: dict[str, list[LogRecord]] = {}
    for record in records:
        log = logs.setdefault(f"engagement.{record.topic}", [])
        log.append(LogRecord(len(log), record.send_ms, record.key, record.value))
    while logs:
        topic = rng.choice(sorted(logs))
        size = rng.randint(1, RUN_MAX)
        yield Run(topic, 0, "", logs[topic][:size])
        logs[topic] = logs[topic][size:]
        if not logs[topic]:
            del logs[topic]


if __name__ == "__main__":
    rules = history_world().plan
    runs = runs_of(plan(harsh_script(1, EVENTS)), Random(1))
    print(Folding(rules, 1).fold(runs), profile.__file__)
