"""From the sums of all tasks' accumulators to records of the metrics topic: windows, values, finality, revisions."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from models.outputs import metric_id
from streams.engagement.accumulators import LEVEL_OF_BUCKET, Dimensions, key_of
from streams.engagement.metrics import (
    MINUTE_MS,
    MINUTES_PUBLISHED_FOR_MS,
    REGISTRY,
    REVISED_FOR_MS,
    SINCE_START,
    WINDOWS,
    Metric,
)


class Published(NamedTuple):
    """What was last published of a window: all that has to be remembered of it."""

    numerator: int
    denominator: int | None
    final: bool
    revision: int
    window_end_ms: int


class MetricValue(NamedTuple):
    """A metric over one window, as of now. key: the window's identity, the same for all its revisions."""

    key: str
    metric: Metric
    dimensions: dict[str, str]
    window: str
    window_start_ms: int
    window_end_ms: int
    numerator: int
    denominator: int | None
    final: bool
    watermark_ms: int


class Revision(NamedTuple):
    """A value to be published, under its number."""

    value: MetricValue
    revision: int

    @property
    def published(self) -> Published:
        """What to remember under the value's key once this is published."""
        value = self.value
        return Published(value.numerator, value.denominator, value.final, self.revision, value.window_end_ms)

    def record(self, state_since_ms: int) -> dict[str, Any]:
        """The value of the record in the metrics topic."""
        value = self.value
        return {
            "metric": value.metric.name,
            "dimensions": value.dimensions,
            "window": value.window,
            "window_start_ms": value.window_start_ms,
            "window_end_ms": value.window_end_ms,
            "numerator": value.numerator,
            "denominator": value.denominator,
            "value": _quotient(value.numerator, value.denominator),
            "unit": value.metric.unit,
            "final": value.final,
            "revision": self.revision,
            "watermark_ms": value.watermark_ms,
            "state_since_ms": state_since_ms,
            "definition_version": value.metric.definition_version,
        }


def least_watermarks(tasks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Per channel the least watermark of all tasks; one that had no record yet (-1) holds nothing back."""
    least: dict[str, int] = {}
    for watermarks in tasks:
        for channel, watermark_ms in watermarks.items():
            if watermark_ms >= 0:
                least[channel] = min(least.get(channel, watermark_ms), watermark_ms)
    return least


def evaluate(
    fields: Mapping[str, int], watermarks: Mapping[str, int], since: Mapping[str, int], state_since_ms: int
) -> list[MetricValue]:
    """Every window worth publishing, of sums over all tasks; see `Totals.values`."""
    totals = Totals()
    for field, value in fields.items():
        totals.add(field, value)
    return totals.values(watermarks, since, state_since_ms)


def revise(published: Mapping[str, Published], values: Iterable[MetricValue]) -> list[Revision]:
    """Those values whose numbers or finality differ from what was published; what was final once stays final.

    A minute in which nothing was counted is published only where something else was before.
    """
    revisions = []
    for value in values:
        before = published.get(value.key)
        if before is None:
            if value.numerator or value.window != "60s":
                revisions.append(Revision(value, 1))
            continue
        if before.final and not value.final:
            value = value._replace(final=True)
        if (value.numerator, value.denominator, value.final) != before[:3]:
            revisions.append(Revision(value, before.revision + 1))
    return revisions


def outdated(published: Mapping[str, Published], watermarks: Mapping[str, int]) -> list[str]:
    """Keys of windows too old to be revised, which need not be remembered; those of a metric no longer known, too."""
    keys = []
    for key, was in published.items():
        metric = REGISTRY.get(key.partition("|")[0])
        if metric is None:
            keys.append(key)
            continue
        known = [watermarks[channel] for channel in metric.topics if channel in watermarks]
        kept_ms = metric.horizon_ms + REVISED_FOR_MS
        if known and f"|{SINCE_START}|" not in key and was.window_end_ms + kept_ms < min(known):
            keys.append(key)
    return keys


class _Sums:
    """Buckets of one part, summed up so that any span costs two searches."""

    def __init__(self, buckets: Mapping[int, int]) -> None:
        self._starts = sorted(buckets)
        self._sums = [0, *accumulate(buckets[start] for start in self._starts)]

    def between(self, start_ms: int, end_ms: int) -> int:
        return self._sums[bisect_left(self._starts, end_ms)] - self._sums[bisect_left(self._starts, start_ms)]


class _Series:
    """A metric's buckets for one combination of dimension values, and what was told of them."""

    def __init__(self, metric: Metric, dimensions: Dimensions, shared: "_Buckets") -> None:
        self.metric = metric
        self.channels = _channels(metric, dimensions)
        self.dimensions = dict(zip(metric.dimensions, dimensions, strict=True))
        self.own: _Buckets = {}
        self.shared = shared
        self.changed: set[str] = set()
        """Levels changed since they were told."""
        self.told_at: dict[str, int] = {}
        """Per window the bucket in which the watermark stood then."""

    def add(self, level: str, part: str, start_ms: int, amount: int) -> None:
        """Add to one bucket; one that comes to nothing is gone."""
        _add(self.own, level, part, start_ms, amount)
        self.changed.add(level)

    def whole(self, level: str, parts: tuple[str, ...]) -> dict[int, int]:
        """The parts' buckets of one level added up, by start."""
        whole: dict[int, int] = {}
        for part in parts:
            for buckets in (self.own, self.shared):
                for start_ms, value in buckets.get((level, part), {}).items():
                    whole[start_ms] = whole.get(start_ms, 0) + value
        return whole

    def due(self, window: str, watermark_ms: int) -> bool:
        """Whether a window's numbers, or the edges it is told at, may be others than when it was last told."""
        bucket_ms = WINDOWS[window].bucket_ms
        at = watermark_ms // bucket_ms if bucket_ms else 0
        told_before, self.told_at[window] = self.told_at.get(window), at
        return told_before != at or _level(self.metric, window) in self.changed


_Buckets = dict[tuple[str, str], dict[int, int]]
"""By level and part, start -> number."""


def _add(buckets: _Buckets, level: str, part: str, start_ms: int, amount: int) -> None:
    row = buckets.setdefault((level, part), {})
    value = row.get(start_ms, 0) + amount
    if value:
        row[start_ms] = value
    else:
        row.pop(start_ms, None)


def _level(metric: Metric, window: str) -> str:
    """The level of the buckets a window is made of."""
    return window if _told_at_edges(metric) else LEVEL_OF_BUCKET[WINDOWS[window].bucket_ms]


def _told_at_edges(metric: Metric) -> bool:
    """Whether the facts of a metric name the windows themselves, by their ends."""
    return any(source.window is not None for source in metric.sources)


class Totals:
    """The accumulators of all tasks, added up and kept from one publication to the next."""

    def __init__(self) -> None:
        self._shared: dict[str, _Buckets] = {name: {} for name in REGISTRY}
        """Parts without dimensions of metrics that have some: they belong to each of the metric's series."""
        self._series: dict[tuple[str, Dimensions], _Series] = {}
        for metric in REGISTRY.values():
            for dimensions in metric.values or ():
                self._new(metric, dimensions)

    def _new(self, metric: Metric, dimensions: Dimensions) -> _Series:
        series = self._series[metric.name, dimensions] = _Series(metric, dimensions, self._shared[metric.name])
        return series

    def add(self, field: str, amount: int) -> None:
        """Add to the number of an accumulator's name; one of a metric no longer known is nothing to add."""
        key = key_of(field)
        metric = REGISTRY.get(key.metric)
        if metric is None:
            return
        if metric.dimensions and not key.dimensions:
            _add(self._shared[key.metric], key.level, key.part, key.start_ms, amount)
            for (name, _), series in self._series.items():
                if name == key.metric:
                    series.changed.add(key.level)
            return
        found = self._series.get((key.metric, key.dimensions))
        (found or self._new(metric, key.dimensions)).add(key.level, key.part, key.start_ms, amount)

    def values(self, watermarks: Mapping[str, int], since: Mapping[str, int], state_since_ms: int) -> list[MetricValue]:
        """Windows worth publishing: open, ended since the last publication, or such as may still change.

        Left out are those told before of which nothing can have changed. watermarks: by channel, least over all tasks;
        since: by channel, the watermarks of the last publication (none: from the first bucket on). A watermark that
        went back counts as it was last published.
        """
        values: list[MetricValue] = []
        for series in self._series.values():
            before_ms = _before(series.channels, since)
            watermark_ms = _watermark(series.channels, watermarks, before_ms)
            if watermark_ms is None:
                continue
            for window in series.metric.windows:
                if series.due(window, watermark_ms):
                    values += _values(series, window, watermark_ms, before_ms, state_since_ms)
            series.changed.clear()
        return values

    def reached(self, watermarks: Mapping[str, int], since: Mapping[str, int]) -> dict[str, int]:
        """What `since` is to be after these values are published: watermarks by channel and by set of channels.

        A set has its own, as a topic's first record may be older than all that was told without that topic; so a
        watermark that was published once is never followed by a lower one.
        """
        reached = {channel: max(at, since.get(channel, at)) for channel, at in watermarks.items()}
        for series in self._series.values():
            watermark_ms = _watermark(series.channels, watermarks, _before(series.channels, since))
            if watermark_ms is not None:
                reached[_set_of(series.channels)] = watermark_ms
        return {**since, **reached}


def told_as(metric: Metric, dimensions: Dimensions) -> str:
    """The name under which it is remembered up to which watermark a metric's series was told."""
    return _set_of(_channels(metric, dimensions))


def _set_of(channels: tuple[str, ...]) -> str:
    """The name under which the watermark of several channels together is remembered; of one, its own."""
    return "+".join(channels)


def _before(channels: tuple[str, ...], since: Mapping[str, int]) -> int | None:
    """The watermark up to which metrics of these channels were told."""
    told = since.get(_set_of(channels))
    return min([since[channel] for channel in channels if channel in since], default=None) if told is None else told


def _watermark(channels: tuple[str, ...], watermarks: Mapping[str, int], before_ms: int | None) -> int | None:
    """The least of the channels', never below what was told; None before the first."""
    known = [watermarks[channel] for channel in channels if channel in watermarks]
    return max(min(known), -1 if before_ms is None else before_ms) if known else None


def _channels(metric: Metric, dimensions: Dimensions) -> tuple[str, ...]:
    """The topics whose watermarks count; where a topic is a dimension, that one alone."""
    for name, value in zip(metric.dimensions, dimensions, strict=True):
        if name == "topic" and value.split(".")[-2:-1] and value.split(".")[-2] in metric.topics:
            return (value.split(".")[-2],)
    return metric.topics


def _values(
    series: _Series, window: str, watermark_ms: int, since_ms: int | None, state_since_ms: int
) -> Iterator[MetricValue]:
    """The metric over every window of one length that is worth publishing."""
    metric, length_ms = series.metric, WINDOWS[window].length_ms
    level = _level(metric, window)
    told_at_edges = _told_at_edges(metric)
    rows = [series.whole(level, parts) for parts in (metric.numerator, metric.denominator or ())]
    if not any(rows):
        return
    earliest_ms = min(start_ms for row in rows for start_ms in row)
    numerators = _Sums(rows[0])
    denominators = None if metric.denominator is None else _Sums(rows[1])
    dimensions = series.dimensions
    prefix = metric_id(metric.name, dimensions, window, 0)[:-1]
    if window == SINCE_START:
        spans: Iterable[tuple[int, int, int, int]] = ((state_since_ms, watermark_ms, 0, 1),)
    else:
        ends = _ends(metric, window, watermark_ms, since_ms, earliest_ms - told_at_edges)
        spans = ((end - length_ms, end, end if told_at_edges else end - length_ms, end + told_at_edges) for end in ends)
    for start_ms, end_ms, first_ms, last_ms in spans:
        yield MetricValue(
            f"{prefix}{start_ms}",
            metric,
            dimensions,
            window,
            start_ms,
            end_ms,
            numerators.between(first_ms, last_ms),
            None if denominators is None else denominators.between(first_ms, last_ms),
            window != SINCE_START and watermark_ms >= end_ms + metric.horizon_ms,
            watermark_ms,
        )


def _ends(metric: Metric, window: str, watermark_ms: int, since_ms: int | None, first_ms: int) -> range:
    """The bucket edges at which the windows worth publishing end, all after first_ms."""
    bucket_ms = WINDOWS[window].bucket_ms
    after_ms = first_ms
    if since_ms is not None:
        after_ms = max(after_ms, min(since_ms, watermark_ms - metric.horizon_ms - REVISED_FOR_MS))
    if bucket_ms == MINUTE_MS:
        after_ms = max(after_ms, watermark_ms - MINUTES_PUBLISHED_FOR_MS)
    return range((after_ms // bucket_ms + 1) * bucket_ms, (watermark_ms // bucket_ms + 1) * bucket_ms + 1, bucket_ms)


def _quotient(numerator: int, denominator: int | None) -> float | None:
    if denominator is None:
        return numerator
    return numerator / denominator if denominator else None
