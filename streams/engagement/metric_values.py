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


def summed(tasks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The accumulators of several tasks added up."""
    total: dict[str, int] = {}
    for fields in tasks:
        for field, value in fields.items():
            total[field] = total.get(field, 0) + value
    return total


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
    """Every window worth publishing: the open one, those ended since the last publication, those that may still change.

    fields: sums over all tasks; watermarks: by channel, least over all tasks; since: by channel, the watermarks of the
    last publication (none: from the first bucket on). A watermark that went back counts as it was last published.
    """
    values: list[MetricValue] = []
    for series in _all_series(fields).values():
        channels = _channels(series.metric, series.dimensions)
        known = [watermarks[channel] for channel in channels if channel in watermarks]
        before = [since[channel] for channel in channels if channel in since]
        if known:
            watermark_ms = max(min(known), min(before, default=-1))
            for window in series.metric.windows:
                values += _values(series, window, watermark_ms, min(before, default=None), state_since_ms)
    return values


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
    """A metric's buckets for one combination of dimension values; first_ms: the earliest of each level."""

    def __init__(self, metric: Metric, dimensions: Dimensions) -> None:
        self.metric = metric
        self.dimensions = dimensions
        self.buckets: dict[tuple[str, str], dict[int, int]] = {}
        self.first_ms: dict[str, int] = {}

    def put(self, level: str, part: str, start_ms: int, value: int) -> None:
        self.buckets.setdefault((level, part), {})[start_ms] = value
        self.first_ms[level] = min(self.first_ms.get(level, start_ms), start_ms)

    def sums(self, level: str, parts: tuple[str, ...]) -> _Sums:
        whole: dict[int, int] = {}
        for part in parts:
            for start_ms, value in self.buckets.get((level, part), {}).items():
                whole[start_ms] = whole.get(start_ms, 0) + value
        return _Sums(whole)


def _all_series(fields: Mapping[str, int]) -> dict[tuple[str, Dimensions], _Series]:
    """One series per metric and dimension values; a part without dimensions belongs to all of its metric's."""
    all_series: dict[tuple[str, Dimensions], _Series] = {}
    for metric in REGISTRY.values():
        for dimensions in metric.values or ():
            all_series[metric.name, dimensions] = _Series(metric, dimensions)
    shared = []
    for field, value in fields.items():
        key = key_of(field)
        found = REGISTRY.get(key.metric)
        if found is None:
            continue
        if found.dimensions and not key.dimensions:
            shared.append((key, value))
            continue
        series = all_series.setdefault((found.name, key.dimensions), _Series(found, key.dimensions))
        series.put(key.level, key.part, key.start_ms, value)
    for key, value in shared:
        for (name, _), series in all_series.items():
            if name == key.metric:
                series.put(key.level, key.part, key.start_ms, value)
    return all_series


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
    metric, length_ms, bucket_ms = series.metric, WINDOWS[window].length_ms, WINDOWS[window].bucket_ms
    told_at_edges = any(source.window is not None for source in metric.sources)
    level = window if told_at_edges else LEVEL_OF_BUCKET[bucket_ms]
    if level not in series.first_ms:
        return
    numerators = series.sums(level, metric.numerator)
    denominators = None if metric.denominator is None else series.sums(level, metric.denominator)
    dimensions = dict(zip(metric.dimensions, series.dimensions, strict=True))
    prefix = metric_id(metric.name, dimensions, window, 0)[:-1]
    if window == SINCE_START:
        spans: Iterable[tuple[int, int, int, int]] = ((state_since_ms, watermark_ms, 0, 1),)
    else:
        ends = _ends(metric, window, watermark_ms, since_ms, series.first_ms[level] - told_at_edges)
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
