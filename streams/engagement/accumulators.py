"""A task's share of the live metrics: absolute integers in buckets of event time, each under a string name.

A name is metric|dimensions|part|level|start: dimensions a JSON array of values, level the bucket's width (60s, 1h, 1d,
or all), start its first millisecond. Counts that are told for a whole window have the window's name as level and its
end as start.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from streams.engagement.decay import HOUR_MS
from streams.engagement.metrics import (
    MINUTE_MS,
    MINUTES_PUBLISHED_FOR_MS,
    REGISTRY,
    REVISED_FOR_MS,
    SINCE_START,
    WINDOWS,
    Metric,
    Source,
)
from streams.engagement.windows import DAY_MS

DIMENSION_VALUES_MAX: Final = 1_000
OTHER: Final = "other"
UNKNOWN: Final = "unknown"
LEVEL_OF_BUCKET: Final[Mapping[int, str]] = {MINUTE_MS: "60s", HOUR_MS: "1h", DAY_MS: "1d", 0: SINCE_START}
_BUCKET_OF_LEVEL: Final = {level: bucket_ms for bucket_ms, level in LEVEL_OF_BUCKET.items()}

Dimensions = tuple[str, ...]


class Key(NamedTuple):
    """What a number counts; see the module."""

    metric: str
    dimensions: Dimensions
    part: str
    level: str
    start_ms: int


_key: Final = partial(tuple.__new__, Key)
"""Key._make at half its cost."""


def field_of(key: Key) -> str:
    """The name a number is stored under."""
    metric, dimensions, part, level, start_ms = key
    return f"{metric}|{_written(dimensions)}|{part}|{level}|{start_ms}"


@lru_cache(maxsize=65_536)
def key_of(field: str) -> Key:
    """The key of a stored name."""
    metric, rest = field.split("|", 1)
    dimensions, part, level, start_ms = rest.rsplit("|", 3)
    return Key(metric, tuple(json.loads(dimensions)), part, level, int(start_ms))


@lru_cache(maxsize=4_096)
def _written(dimensions: Dimensions) -> str:
    return json.dumps(dimensions, separators=(",", ":"), ensure_ascii=False)


class Accumulators:
    """Counts events and facts of one task.

    others: how many were counted under `other`, as their metric had too many values of its dimensions already.
    """

    def __init__(self) -> None:
        self.others = 0
        self._values: dict[Key, int] = {}
        self._changed: set[Key] = set()
        self._facts: Counter[tuple[Any, ...]] = Counter()
        """Facts told lately and how often: many customers tell the same, so they are expanded once."""
        self._topic_of_type: dict[str, str] = {}
        self._known: dict[str, set[Dimensions]] = {name: set() for name in REGISTRY}
        self._expired_at: dict[str, int] = {}

    @classmethod
    def load(cls, fields: Mapping[str, int]) -> "Accumulators":
        """The accumulators as stored; what a metric no longer in the registry left is dropped."""
        accumulators = cls()
        for field, value in fields.items():
            key = key_of(field)
            accumulators._values[key] = value
            if key.metric not in REGISTRY:
                accumulators._drop(key)
                continue
            accumulators._known[key.metric].add(key.dimensions)
            if key.metric == "events":
                accumulators._topic_of_type[key.dimensions[1]] = key.dimensions[0]
        return accumulators

    def count_events(self, topic: str, events: Iterable[tuple[str, int]]) -> None:
        """Count applied events of a topic, each given by its type and the number of the minute it occurred in."""
        for (event_type, minute), times in Counter(events).items():
            self._facts["event", topic, event_type, minute * MINUTE_MS, 1] += times

    def add_facts(self, facts: Iterable[tuple[Any, ...]]) -> None:
        """Count facts of the core; see FACTS in `decisions`. Expanded into buckets when changes are asked for."""
        self._facts.update(facts)

    def changed(self) -> dict[str, int | None]:
        """Absolute values of what changed since the last call, by name; None where nothing is left to keep."""
        self._expand()
        changed = {field_of(key): self._values.get(key) for key in self._changed}
        self._changed.clear()
        return changed

    def expire(self, watermarks: Mapping[str, int]) -> None:
        """Drop the buckets that no window to be published or revised needs any more.

        watermarks: by channel, the least of this task's and of what the metrics were last published for; at most once
        an hour of each metric's least watermark anything is done.
        """
        self._expand()
        due = {}
        for name, metric in REGISTRY.items():
            known = [watermarks[topic] for topic in metric.topics if watermarks.get(topic, -1) >= 0]
            watermark_ms = min(known, default=-1)
            if watermark_ms // HOUR_MS > self._expired_at.get(name, -1):
                self._expired_at[name] = watermark_ms // HOUR_MS
                due[name] = {level: watermark_ms - kept_ms for level, kept_ms in _KEPT_MS[name].items()}
        if due:
            for key in [key for key in self._values if key.start_ms < due.get(key.metric, {}).get(key.level, -1)]:
                self._drop(key)
            for name in due:
                self._known[name] = set()
            for key in self._values:
                self._known[key.metric].add(key.dimensions)

    def _move(self, event_type: str, from_ms: int, to_ms: int, times: int) -> None:
        """An event counted before belongs to another time."""
        topic = self._topic_of_type.get(event_type)
        if topic is not None:
            self._count(("event", topic, event_type, from_ms, -1), times)
            self._count(("event", topic, event_type, to_ms, 1), times)

    def _expand(self) -> None:
        """Put the facts told lately into their buckets; those that move an event come after the events."""
        facts, self._facts = self._facts, Counter()
        for fact, times in facts.items():
            if fact[0] != "moved":
                self._count(fact, times)
        for fact, times in facts.items():
            if fact[0] == "moved":
                _, event_type, from_ms, to_ms = fact
                self._move(event_type, from_ms, to_ms, times)

    def _count(self, fact: tuple[Any, ...], times: int) -> None:
        """Add a fact, told so many times, to the buckets of the metrics that ask for it."""
        if fact[0] == "event":
            self._topic_of_type[fact[2]] = fact[1]
        values = self._values
        for metric, source in _SOURCES.get(fact[0], ()):
            name, part = metric.name, source.part
            dimensions = self._dimensions(name, source, fact) if source.dimensions else ()
            amount = times if source.amount is None else times * fact[source.amount]
            for level, start_ms in _buckets(metric, source, fact):
                key = _key((name, dimensions, part, level, start_ms))
                value = values.get(key, 0) + amount
                if value:
                    values[key] = value
                else:
                    values.pop(key, None)
                self._changed.add(key)

    def _dimensions(self, metric: str, source: Source, fact: tuple[Any, ...]) -> Dimensions:
        dimensions = tuple([_name(source, fact[at]) for at in source.dimensions])
        known = self._known[metric]
        if dimensions in known:
            return dimensions
        if len(known) >= DIMENSION_VALUES_MAX:
            self.others += 1
            return (OTHER,) * len(dimensions)
        known.add(dimensions)
        return dimensions

    def _drop(self, key: Key) -> None:
        del self._values[key]
        self._changed.add(key)


def _name(source: Source, value: Any) -> str:
    if value is None:
        return UNKNOWN
    return source.names.get(value, value)


def _buckets(metric: Metric, source: Source, fact: tuple[Any, ...]) -> Iterable[tuple[str, int]]:
    """(level, start) of each bucket the fact counts in."""
    time_ms = fact[source.time]
    if source.window is not None and source.edges is not None:
        window = fact[source.window]
        bucket_ms = WINDOWS[window].bucket_ms
        return [(window, time_ms + edge * bucket_ms) for edge in range(fact[source.edges])]
    return [
        (level, time_ms - time_ms % bucket_ms if bucket_ms else 0) for level, bucket_ms in _LEVELS[metric.name].items()
    ]


def _levels(metric: Metric) -> dict[str, int]:
    """The bucket widths that a metric's windows need, by level."""
    widths = {WINDOWS[window].bucket_ms for window in metric.windows}
    return {LEVEL_OF_BUCKET[bucket_ms]: bucket_ms for bucket_ms in sorted(widths)}


def _kept_ms(metric: Metric) -> dict[str, int]:
    """How long before the watermark buckets of each level are kept."""
    kept: dict[str, int] = {}
    for name in metric.windows:
        window = WINDOWS[name]
        if window.length_ms:
            level = LEVEL_OF_BUCKET[window.bucket_ms]
            after_ms = MINUTES_PUBLISHED_FOR_MS if name == "60s" else metric.horizon_ms + REVISED_FOR_MS
            kept[name] = after_ms
            kept[level] = max(kept.get(level, 0), window.length_ms + after_ms + window.bucket_ms)
    return kept


_LEVELS: Final = {name: _levels(metric) for name, metric in REGISTRY.items()}
_KEPT_MS: Final = {name: _kept_ms(metric) for name, metric in REGISTRY.items()}
_SOURCES: Final[dict[str, tuple[tuple[Metric, Source], ...]]] = {
    fact: tuple((metric, source) for metric in REGISTRY.values() for source in metric.sources if source.fact == fact)
    for fact in {source.fact for metric in REGISTRY.values() for source in metric.sources}
}
