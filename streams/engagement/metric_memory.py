"""What was published of the live metrics, read back from their topic: for a state that lost its memory of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from models.outputs import metric_id
from streams.engagement.metric_values import Published, told_as
from streams.engagement.metrics import REGISTRY


def remembered(records: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Published], dict[str, int]]:
    """(what to remember of each window by its key, the watermarks up to which metrics were told), of published records.

    Of a window the record with the highest (watermark_ms, revision) counts, as for any reader; metrics no longer in the
    registry are left out. Watermarks are epoch ms, by the name of the channels whose watermarks count together.
    """
    newest: dict[str, tuple[tuple[int, int], Published]] = {}
    told: dict[str, int] = {}
    for record in records:
        metric = REGISTRY.get(record["metric"])
        if metric is None or set(record["dimensions"]) != set(metric.dimensions):
            continue
        watermark_ms, revision = record["watermark_ms"], record["revision"]
        channels = told_as(metric, tuple(record["dimensions"][name] for name in metric.dimensions))
        told[channels] = max(watermark_ms, told.get(channels, watermark_ms))
        key = metric_id(metric.name, record["dimensions"], record["window"], record["window_start_ms"])
        if key not in newest or newest[key][0] <= (watermark_ms, revision):
            newest[key] = (
                (watermark_ms, revision),
                Published(
                    record["numerator"], record["denominator"], record["final"], revision, record["window_end_ms"]
                ),
            )
    return {key: published for key, (_, published) in newest.items()}, told
