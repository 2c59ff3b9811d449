"""An independent fold of the input log: what Pulseline must have decided, computed in the most obvious way.

It shares nothing with the core but the text of the contract: json.loads, plain dicts, full history, every figure
recomputed from all events. Only carts are folded step by step, because their rules speak of what was known when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.fold_input import Rejected, read_control, read_event
from tests.support.fold_metrics import metrics_of
from tests.support.fold_profile import ProfileFold

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
CHANNELS = ("clickstream", "cart", "email", "social")
NO_WATERMARK = -1

DEFAULT_POLICY: dict[str, Any] = {
    "lateness_ms": 10_000,
    "steps": (("15m", 15 * MINUTE_MS), ("1h", HOUR_MS), ("24h", DAY_MS)),
    "cart_expiry_ms": 30 * DAY_MS,
    "order_scope": "customer",
    "recovery_window_ms": 7 * DAY_MS,
    "trigger_cooldown_ms": 0,
    "min_cart_value_minor": 0,
}

TopicPartition = tuple[str, int]


class FoldRecord(NamedTuple):
    """A record of the log; any object with these attributes, or a plain tuple in this order, does as well."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class FoldError(AssertionError):
    """The contract gave one identity to two decisions, or one customer to two tasks."""


@dataclass
class TaskResult:
    """Partition p of all topics; the keys are those of Result."""

    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    triggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    account: dict[TopicPartition, dict[str, int]] = field(default_factory=dict)
    rejected: dict[tuple[str, int, int], str] = field(default_factory=dict)
    watermarks: dict[TopicPartition, int] = field(default_factory=dict)
    profiles: dict[str, ProfileFold] = field(default_factory=dict)
    other_events: list[dict[str, Any]] = field(default_factory=list)
    """Applied events that make no profile: audience_counted."""
    collisions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Every later decision with an id that another has already: see fold."""
    lines_dropped: int = 0
    folded_early: int = 0


@dataclass
class Result(TaskResult):
    """All tasks together.

    customers: customer id -> view. triggers, outcomes: id -> content. account: (topic, partition) -> counts.
    rejected: (topic, partition, offset) -> reason. watermarks: (topic, partition) -> ms, -1 before the first record.
    metrics: see fold_metrics. profiles: the history behind the views.
    """

    tasks: dict[int, TaskResult] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def channel_of(topic: str) -> str:
    """clickstream of engagement.clickstream.v1; KeyError for a topic that is no input."""
    parts = topic.split(".")
    if len(parts) < 2 or parts[-1] != "v1" or parts[-2] not in CHANNELS:
        raise KeyError(topic)
    return parts[-2]


def fold(
    records: Mapping[TopicPartition, Sequence[Any]], policy: Mapping[str, Any] | None = None, *, strict: bool = True
) -> Result:
    """Fold the records of each input topic and partition, in log order; `policy` overrides DEFAULT_POLICY.

    Raises FoldError where two decisions have one id; where not strict, they go to `collisions`. The contract lets that
    happen to a cart whose late line outlives a late order: its closed part and its own end may share last_touch_ms.
    """
    rules = {**DEFAULT_POLICY, **(policy or {})}
    result = Result()
    for partition in sorted({partition for _, partition in records}):
        logs = {topic: log for (topic, number), log in records.items() if number == partition}
        task = result.tasks[partition] = fold_task(partition, logs, rules)
        if strict and task.collisions:
            raise FoldError(f"one id for several decisions: {task.collisions}")
        for name in (
            "customers",
            "triggers",
            "outcomes",
            "collisions",
            "account",
            "rejected",
            "watermarks",
            "profiles",
        ):
            add_all(getattr(result, name), getattr(task, name))
        result.other_events += task.other_events
        result.lines_dropped += task.lines_dropped
        result.folded_early += task.folded_early
    result.metrics = metrics_of(result.profiles.values(), result.other_events)
    return result


def add_all(whole: dict[Any, Any], part: Mapping[Any, Any]) -> None:
    for key, value in part.items():
        if key in whole:
            raise FoldError(f"twice: {key}")
        whole[key] = value


def add_decision(task: TaskResult, known: dict[str, Any], key: str, content: dict[str, Any]) -> None:
    if key in known:
        task.collisions.setdefault(key, []).append(content)
    else:
        known[key] = content


def fold_task(partition: int, logs: Mapping[str, Sequence[Any]], policy: Mapping[str, Any]) -> TaskResult:
    """Fold one task; no topic's log depends on another's but for the end of sessions."""
    task = TaskResult()
    for topic, log in sorted(logs.items()):
        fold_log(task, topic, partition, log, policy)
    by_channel = {channel_of(topic): watermark for (topic, _), watermark in task.watermarks.items()}
    session_watermark_ms = min(by_channel.get("clickstream", NO_WATERMARK), by_channel.get("cart", NO_WATERMARK))
    for customer_id, profile in task.profiles.items():
        carts = profile.carts
        carts.release(by_channel.get("cart", NO_WATERMARK))
        task.customers[customer_id] = profile.view(session_watermark_ms)
        for trigger in carts.triggers:
            add_decision(task, task.triggers, trigger["trigger_id"], trigger)
        for outcome in carts.outcomes:
            add_decision(task, task.outcomes, outcome["outcome_id"], outcome)
        task.lines_dropped += carts.lines_dropped
        task.folded_early += carts.folded_early
    return task


def fold_log(task: TaskResult, topic: str, partition: int, log: Sequence[Any], policy: Mapping[str, Any]) -> None:
    """Read one topic's partition in order; its watermark moves after each accepted, duplicate or control record.

    A customer's carts catch up with the watermark only when the customer's next event is read, and at the end: between
    those two nothing about them can change, so it makes no difference.
    """
    channel = channel_of(topic)
    account = dict.fromkeys(("applied", "duplicate", "rejected", "control", "erased"), 0)
    watermark_ms = NO_WATERMARK
    for item in log:
        record = FoldRecord(*item) if type(item) is tuple else item
        try:
            control_ms = read_control(record, channel)
            if control_ms is not None:
                account["control"] += 1
                watermark_ms = max(watermark_ms, min(control_ms, record.timestamp - policy["lateness_ms"]))
                continue
            event = read_event(record, channel)
        except Rejected as rejected:
            account["rejected"] += 1
            task.rejected[topic, partition, record.offset] = rejected.reason
            continue
        account["applied" if apply(task, event, channel, watermark_ms, policy) else "duplicate"] += 1
        watermark_ms = max(watermark_ms, min(event["occurred_at_ms"], record.timestamp) - policy["lateness_ms"])
    task.account[topic, partition] = account
    task.watermarks[topic, partition] = watermark_ms


def apply(task: TaskResult, event: dict[str, Any], channel: str, watermark_ms: int, policy: Mapping[str, Any]) -> bool:
    if event["type"] == "audience_counted":
        task.other_events.append(event)
        return True
    customer_id = event["customer_id"]
    if customer_id not in task.profiles:
        task.profiles[customer_id] = ProfileFold(customer_id, dict(policy))
    return task.profiles[customer_id].apply(event, channel, watermark_ms)
