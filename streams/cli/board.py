"""What was seen of the outputs, and how it is shown: as a live screen, or as plain lines where there is no terminal."""

import json
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from models.outputs import RejectedHeaders

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN_MAX = 8
SHOWN_WINDOW = "24h"
FRAME_LINES = 23
"""Lines of the screen that are no rows of its three tables."""
REMEMBERED_MAX = 10_000


def clock(ms: int) -> str:
    """A time of day, UTC."""
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%H:%M:%S}"


def money(minor: int | None, currency: str | None) -> str:
    """An amount in minor units, as people read it."""
    return "" if minor is None else f"{minor / 100:,.2f} {currency or ''}".strip()


def worth(metric: dict[str, Any]) -> str:
    """A metric's value in its unit, as people read it."""
    value, unit = metric["value"], metric["unit"]
    if value is None:
        return "-"
    if unit == "ratio":
        return f"{value:.1%}"
    if unit == "minor units":
        return money(round(value), metric["dimensions"].get("currency"))
    return f"{value:,.4g} {unit}"


@dataclass(slots=True)
class Board:
    """Counts of everything seen, and the newest of each kind; `take` returns a plain line for what is worth one."""

    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    triggers: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    ended: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=SHOWN_MAX))
    metrics: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    first_trigger_s: float | None = None
    begun_s: float = field(default_factory=time.monotonic)

    def take(self, suffix: str, record: Any) -> str | None:
        """Count a record of an output topic, and remember what is shown of it."""
        kind = suffix.removesuffix(".v1")
        self.counts[kind] += 1
        if kind == "rejected":
            return self._rejected(record)
        value = json.loads(record.value)
        return {
            "scores": self._score,
            "triggers": self._trigger,
            "outcomes": self._outcome,
            "metrics": self._metric,
        }[kind](value)

    def _rejected(self, record: Any) -> str:
        found = RejectedHeaders.read_from(record.headers)
        self.rejected[found.reason] += 1
        return f"rejected  {found.reason} ({found.topic}, partition {found.partition}, offset {found.offset})"

    def _score(self, score: dict[str, Any]) -> None:
        self.scores.pop(score["customer_id"], None)
        self.scores[score["customer_id"]] = score
        if len(self.scores) > REMEMBERED_MAX:
            del self.scores[next(iter(self.scores))]

    def _trigger(self, trigger: dict[str, Any]) -> str:
        if trigger["action"] == "cancel":
            self.counts["cancels"] += 1
            return f"cancel    {trigger['customer_id']}: {trigger['reason']}, {len(trigger['trigger_ids'])} trigger(s)"
        self.counts["sends"] += 1
        if self.first_trigger_s is None:
            self.first_trigger_s = time.monotonic() - self.begun_s
        self.triggers.append(trigger)
        what = money(trigger["total_minor"], trigger["currency"]) or "no total"
        return (
            f"trigger   {trigger['step']:>4} {trigger['customer_id']}: {trigger['items_count']} item(s), {what}, "
            f"score {trigger['score']:.2f}, id {trigger['trigger_id']}"
        )

    def _outcome(self, outcome: dict[str, Any]) -> str:
        self.outcomes[outcome["outcome"]] += 1
        self.ended.append(outcome)
        order = money(outcome["order_total_minor"], outcome["currency"])
        return f"outcome   {outcome['outcome']:<9} {outcome['customer_id']}" + (f": order of {order}" if order else "")

    def _metric(self, metric: dict[str, Any]) -> None:
        shown = (metric["metric"], json.dumps(metric["dimensions"], sort_keys=True), metric["window"])
        held = self.metrics.get(shown)
        newer = held is None or (metric["window_end_ms"], metric["watermark_ms"], metric["revision"]) >= (
            held["window_end_ms"],
            held["watermark_ms"],
            held["revision"],
        )
        if newer:
            self.metrics[shown] = metric

    def summary(self) -> str:
        """One line that counts everything."""
        parts = [f"{self.counts[kind]} {kind}" for kind in ("scores", "sends", "cancels", "outcomes", "rejected")]
        return ", ".join(parts).replace("sends", "triggers")

    def screen(self, title: str, footer: str = "", *, height: int = 50) -> "RenderableType":
        """Everything at a glance, on a terminal of so many lines."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        rows = max(2, min(SHOWN_MAX, (height - FRAME_LINES) // 3))
        tables = [make(rows) for make in (self._triggers, self._outcomes, self._scores, self._metrics)]
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.rejected.most_common()) or "none"
        return Group(
            Text(f"{title}   {self.summary()}", style="bold"),
            *tables[:2],
            Columns(tables[2:], padding=(0, 2)),
            Text(f"Rejected by reason: {reasons}"),
            Text(footer, style="dim"),
        )

    def _triggers(self, rows: int) -> "Table":
        table = _table("Triggers", "sent", "step", "customer", "cart", "items", "total", "score", "trigger_id")
        for each in list(self.triggers)[-rows:][::-1]:
            table.add_row(
                clock(each["emitted_ms"]),
                each["step"],
                each["customer_id"],
                each["cart_id"] or "-",
                str(each["items_count"]),
                money(each["total_minor"], each["currency"]),
                f"{each['score']:.2f}",
                each["trigger_id"],
            )
        return table

    def _outcomes(self, rows: int) -> "Table":
        counted = ", ".join(f"{name} {number}" for name, number in self.outcomes.most_common())
        table = _table(f"Outcomes ({counted or 'none yet'})", "at", "outcome", "customer", "cart", "order", "reason")
        for each in list(self.ended)[-rows:][::-1]:
            table.add_row(
                clock(each["occurred_at_ms"]),
                each["outcome"],
                each["customer_id"],
                each["cart_id"] or "-",
                money(each["order_total_minor"], each["currency"]),
                each["reason"] or "",
                style="green" if each["outcome"] == "recovered" else "",
            )
        return table

    def _scores(self, rows: int) -> "Table":
        table = _table(
            f"Scores ({len(self.scores)} customers)", "customer", "score", "click", "cart", "email", "social"
        )
        for each in list(self.scores.values())[-rows:][::-1]:
            parts = each["contributions"]
            table.add_row(
                each["customer_id"],
                f"{each['score']:.2f}",
                *(f"{parts[channel]:.2f}" for channel in ("clickstream", "cart", "email", "social")),
            )
        return table

    def _metrics(self, rows: int) -> "Table":
        table = _table("Metrics", "metric", "of", "window", "value")
        # The many kinds of events come last, where there is room.
        shown = sorted(
            (key for key in self.metrics if key[2] == SHOWN_WINDOW), key=lambda key: (key[0] == "events", key)
        )
        for name, dimensions, window in shown[:rows]:
            each = self.metrics[name, dimensions, window]
            table.add_row(name, " ".join(json.loads(dimensions).values()), window, worth(each))
        return table


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold cyan", box=SIMPLE_HEAD, padding=(0, 1))
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table
