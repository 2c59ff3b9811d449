"""Counters of a worker in Prometheus' text format. Labels are topics, tasks and names of ours, never a customer's."""

import resource
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from streams.transport.logs import Thinning

if TYPE_CHECKING:
    from streams.processing.processor import Processor
    from streams.processing.task import Task

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[dict[str, Any], int]


class Exposition:
    """What a worker counts; end: of (topic, task) the log end as of the latest fetch, 0 where it is not known."""

    def __init__(
        self, processor: "Processor", *, owned: Callable[[], frozenset[int]], end: Callable[[str, int], int]
    ) -> None:
        self.processor, self.owned, self.end = processor, owned, end

    def text(self) -> str:
        """All metrics as of now."""
        return "".join(line for metric in self._metrics() for line in metric)

    def _metrics(self) -> Iterator[Iterable[str]]:
        processor = self.processor
        tasks = dict(sorted(processor.tasks.items()))
        yield metric("tasks_owned", "gauge", "Tasks assigned to this worker", [({}, len(self.owned()))])
        yield metric("tasks_claimed", "gauge", "Tasks this worker holds in memory", [({}, len(tasks))])
        yield metric("records", "gauge", "Records read since the state began, by how they ended", _account(tasks))
        yield metric(
            "limits_reached", "gauge", "Limits of customers' carts reached since the state began", _limits(tasks)
        )
        yield metric("lag_records", "gauge", "Records not read yet", self._lag(tasks))
        yield metric("commit_age_ms", "gauge", "Time since the last commit or look at the state", self._ages())
        yield metric("profiles", "gauge", "Profiles in memory", _each(tasks, lambda task: len(task.profiles)))
        yield metric(
            "dirty_customers", "gauge", "Customers to be committed", _each(tasks, lambda task: len(task.dirty))
        )
        yield metric(
            "pending_bytes", "gauge", "About the bytes to publish", _each(tasks, lambda task: task.pending_bytes)
        )
        yield metric("fences_total", "counter", "Tasks fenced", [({}, processor.fenced)])
        steps = [({"step": step}, count) for step, count in sorted(processor.backoffs.items())]
        yield metric("backoffs_total", "counter", "Waits for Kafka or Redis", steps)
        yield metric("log_lines_held_back_total", "counter", "Repeated log lines left out", [({}, Thinning.held_back)])
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield metric("resident_bytes_max", "gauge", "Peak memory of the process", [({}, kib * 1_024)])

    def _lag(self, tasks: dict[int, "Task"]) -> list[Sample]:
        return [
            ({"topic": topic, "task": number}, max(0, end - book.position))
            for number, task in tasks.items()
            for topic, book in task.book.topics.items()
            if (end := self.end(topic, number))
        ]

    def _ages(self) -> list[Sample]:
        now_ms = self.processor.clock.monotonic_ms()
        return [({"task": number}, now_ms - at_ms) for number, at_ms in sorted(self.processor.settled.items())]


def metric(name: str, kind: str, told: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one metric."""
    yield f"# HELP pulseline_{name} {told}.\n# TYPE pulseline_{name} {kind}\n"
    for labels, value in samples:
        inner = ",".join(f'{label}="{of}"' for label, of in labels.items())
        yield f"pulseline_{name}{{{inner}}} {value}\n" if inner else f"pulseline_{name} {value}\n"


def _account(tasks: dict[int, "Task"]) -> list[Sample]:
    return [
        ({"topic": topic, "task": number, "how": how}, count)
        for number, task in tasks.items()
        for topic, book in task.book.topics.items()
        for how, count in book.account().items()
    ]


def _limits(tasks: dict[int, "Task"]) -> list[Sample]:
    return [
        ({"task": number, "limit": name}, sum(getattr(book, name) for book in task.book.topics.values()))
        for number, task in tasks.items()
        for name in ("folded_early", "lines_dropped", "carts_trimmed")
    ]


def _each(tasks: dict[int, "Task"], count: Callable[["Task"], int]) -> list[Sample]:
    return [({"task": number}, count(task)) for number, task in tasks.items()]
