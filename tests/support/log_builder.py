"""Writes small input logs by hand for the independent fold: events at minutes after T0, read when they happen."""

import json
from typing import Any

from tests.support.fold import FoldRecord, Result, fold
from tests.support.fold_input import CHANNEL_OF_TYPE

T0 = 1_699_999_200_000  # 2023-11-14T22:00:00Z: a whole hour
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


def at(minutes: float) -> int:
    """Epoch ms of a time in minutes after T0."""
    return T0 + round(minutes * MINUTE_MS)


class LogBuilder:
    """A log of partition 0 of each topic; `result` folds it."""

    def __init__(self, **policy: Any) -> None:
        self.policy = policy
        self.logs: dict[tuple[str, int], list[FoldRecord]] = {}
        self.count = 0

    def put(
        self, kind: str, minutes: float, *, read: float | None = None, customer: str = "c", **fields: Any
    ) -> "LogBuilder":
        """Append an event that occurred at `minutes` and whose record was written at `read` (default: then)."""
        self.count += 1
        event = {"event_id": f"e{self.count:04}", "type": kind, "customer_id": customer, "occurred_at_ms": at(minutes)}
        required = {
            "product_added": {"product_id": "p"},
            "product_removed": {"product_id": "p"},
            "product_viewed": {"product_id": "p"},
            "order_completed": {"order_id": f"o{self.count}"},
            "identity_linked": {"to_customer_id": "known"},
        }
        extra = {"email": {"email_id": "m"}, "social": {"network": "n"}}.get(CHANNEL_OF_TYPE[kind], {})
        return self.raw(
            CHANNEL_OF_TYPE[kind],
            json.dumps({**event, **extra, **required.get(kind, {}), **fields}).encode(),
            minutes if read is None else read,
            key=customer.encode(),
        )

    def raw(
        self, channel: str, value: bytes | None, read: float, *, key: bytes | None = b"c", headers: Any = ()
    ) -> "LogBuilder":
        log = self.logs.setdefault((f"engagement.{channel}.v1", 0), [])
        log.append(FoldRecord(len(log), at(read), key, value, headers))
        return self

    def pass_time(self, minutes: float, channel: str = "cart") -> "LogBuilder":
        """Append a control record that brings the channel's watermark to exactly `minutes`, without another event."""
        value = json.dumps({"type": "watermark_advanced", "watermark_ms": at(minutes)}).encode()
        return self.raw(channel, value, minutes + 1, key=None, headers=(("pl-control", b""),))

    @property
    def result(self) -> Result:
        return fold(self.logs, self.policy)

    @property
    def view(self) -> dict[str, Any]:
        return self.result.customers["c"]

    def steps(self) -> list[tuple[str | None, str, float]]:
        """(cart, step, due in minutes) of every trigger, by due."""
        found = [(one["cart_id"], one["step"], minutes_of(one["due_ms"])) for one in self.result.triggers.values()]
        return sorted(found, key=lambda step: (step[2], step[0] or ""))

    def outcomes(self) -> list[tuple[str, float]]:
        """(outcome, time in minutes) of every outcome as decided, suppressed steps left out."""
        return [(one["outcome"], minutes_of(one["occurred_at_ms"])) for one in self.ended() if one["step"] is None]

    def ended(self) -> list[dict[str, Any]]:
        return list(self.result.outcomes.values())

    def only_outcome(self) -> dict[str, Any]:
        (outcome,) = self.ended()
        return outcome


def minutes_of(time_ms: int) -> float:
    """Minutes after T0."""
    return (time_ms - T0) / MINUTE_MS
