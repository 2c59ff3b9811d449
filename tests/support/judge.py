"""Holds what Pulseline wrote against the independent fold of what it read.

`judge` reads every input and output topic of a real Kafka to its end, folds the input, and compares; `compare` is the
same without Kafka. Stop or drain the workers first: a punctuation record that nobody has read yet is part of the fold.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.fold import CHANNELS, FoldRecord, Result, TopicPartition, fold
from tests.support.fold_carts import identity

VOLATILE = {"emitted_ms", "idle_ms", "score", "contributions", "model_version"}
CANCELLED_BY = {"resumed", "recovered", "closed", "emptied", "merged"}
DECIDED_AT_THE_CUT = {"stale", "erased", "no_consent"}
SCORE_AGE_MS = 60_000
CONNECT = "__connect.errors."
GOT_NOTHING, WANT_NOTHING = "got nothing", "want nothing"

Log = Mapping[int, Sequence[FoldRecord]]
Customers = Mapping[str, Mapping[str, Any]]
Account = Mapping[TopicPartition, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Output topics in log order, partition -> records."""

    triggers: Log
    outcomes: Log
    rejected: Log
    scores: Log


@dataclass(slots=True)
class Verdict:
    """What differs; each list holds readable lines, `repeated` only counts (at least once allows it)."""

    decisions: int = 0
    customers: int = 0
    records: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    """trigger, outcome, cancel or rejected -> how many records had an id that had been read before."""
    stale: int = 0
    lost: list[str] = field(default_factory=list)
    ghost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    customers_differ: list[str] = field(default_factory=list)
    accounts_differ: list[str] = field(default_factory=list)
    rejected_differ: list[str] = field(default_factory=list)
    scores_differ: list[str] = field(default_factory=list)

    @property
    def repeated_same_id(self) -> int:
        return self.repeated.total()

    @property
    def missing(self) -> list[str]:
        """What the fold has and no output topic: decisions, rejected records, scores."""
        return self.lost + [line for line in self.rejected_differ + self.scores_differ if line.endswith(GOT_NOTHING)]

    @property
    def invented(self) -> list[str]:
        """What an output topic has and the fold denies."""
        return self.ghost + [line for line in self.rejected_differ + self.scores_differ if WANT_NOTHING in line]

    @property
    def faults(self) -> dict[str, list[str]]:
        """Name of a kind of fault -> its lines."""
        return {
            "lost": self.lost,
            "ghost": self.ghost,
            "different content": self.different,
            "customers differ": self.customers_differ,
            "accounts differ": self.accounts_differ,
            "rejected differ": self.rejected_differ,
            "scores differ": self.scores_differ,
        }

    @property
    def ok(self) -> bool:
        """True where nothing is lost, invented or different."""
        return not any(self.faults.values())

    def text(self, lines_max: int = 10) -> str:
        """One line of counts, then the first lines of each kind of fault."""
        counts = ", ".join(f"{len(lines)} {name}" for name, lines in self.faults.items())
        head = (
            f"{self.records} records, {self.customers} customers, {self.decisions} triggers and outcomes: {counts}; "
            f"{self.repeated_same_id} repeated with the same id, {self.stale} suppressed as stale"
        )
        shown = [
            f"  {name}: {line}"
            for name, lines in self.faults.items()
            for line in [
                *lines[:lines_max],
                *([f"... {len(lines) - lines_max} more"] if len(lines) > lines_max else []),
            ]
        ]
        return "\n".join([head, *shown])


def judge(
    bootstrap: str,
    prefix: str,
    policy: Mapping[str, Any],
    read_customers: Callable[[], Customers],
    *,
    read_account: Callable[[], Account] | None = None,
    stale_allowed: bool = False,
    score_min_delta: float = 0.5,
    read_committed: bool = False,
) -> Verdict:
    """Read all topics `<prefix>.<channel>.v1` and the outputs, fold, compare.

    read_customers: customer id -> view, of all tasks. read_account: (topic, partition) -> counts of the state.
    stale_allowed: a trigger may have become a suppressed outcome at the cut.
    """
    inputs: dict[TopicPartition, Sequence[FoldRecord]] = {}
    for channel in CHANNELS:
        topic = f"{prefix}.{channel}.v1"
        for partition, log in read_topic(bootstrap, topic, read_committed=read_committed).items():
            inputs[topic, partition] = log
    outputs = Outputs(
        *(
            read_topic(bootstrap, f"{prefix}.{name}.v1", read_committed=read_committed)
            for name in ("triggers", "outcomes", "rejected", "scores")
        )
    )
    return compare(
        fold(inputs, policy, strict=False),
        inputs,
        outputs,
        read_customers(),
        account=None if read_account is None else read_account(),
        stale_allowed=stale_allowed,
        score_min_delta=score_min_delta,
    )


def compare(
    result: Result,
    inputs: Mapping[TopicPartition, Sequence[FoldRecord]],
    outputs: Outputs,
    customers: Customers,
    *,
    account: Account | None = None,
    stale_allowed: bool = False,
    score_min_delta: float = 0.5,
) -> Verdict:
    """Compare outputs and state with the fold; arguments as for judge."""
    verdict = Verdict(
        decisions=len(result.triggers) + len(result.outcomes),
        customers=len(result.customers),
        records=sum(sum(counts.values()) for counts in result.account.values()),
    )
    partition_of = {
        customer_id: partition for partition, task in result.tasks.items() for customer_id in task.customers
    }
    compare_decisions(verdict, result, outputs, partition_of, stale_allowed=stale_allowed)
    compare_rejected(verdict, result, inputs, outputs.rejected)
    compare_customers(verdict, result.customers, customers)
    compare_scores(verdict, result, outputs.scores, score_min_delta)
    if account is not None:
        for key in sorted({*result.account, *account}):
            want, got = result.account.get(key), account.get(key)
            if any(
                dict(want or {}).get(name, 0) != dict(got or {}).get(name, 0) for name in {*(want or {}), *(got or {})}
            ):
                verdict.accounts_differ.append(f"{key[0]}/{key[1]}: want {want}, got {got}")
    return verdict


# ---------------------------------------------------------------- triggers, cancels, outcomes


def compare_decisions(
    verdict: Verdict, result: Result, outputs: Outputs, partition_of: Mapping[str, int], *, stale_allowed: bool
) -> None:
    """Every decision of the fold once or, with the same content, more often; and no other."""
    wanted = {("trigger", key): {"action": "send", **trigger} for key, trigger in result.triggers.items()}
    wanted |= {("outcome", key): outcome for key, outcome in result.outcomes.items()}
    later = [(key, outcome) for key, contents in result.collisions.items() for outcome in contents]
    wanted |= {
        ("cancel", key): cancel_of(outcome)
        for key, outcome in [*later, *result.outcomes.items()]
        if has_cancel(outcome)
    }
    stale = {("outcome", stale_id(trigger)): trigger for trigger in result.triggers.values()} if stale_allowed else {}
    seen: Counter[tuple[str, str]] = Counter()
    suppressed: set[str] = set()
    for key, partition, got in decisions_of(outputs):
        seen[key] += 1
        lines = envelope_faults(key[0], partition, got, partition_of)
        if key in wanted:
            content = {
                name: value for name, value in got.content.items() if key[0] != "trigger" or name not in VOLATILE
            }
            others = result.collisions.get(key[1], [])
            if not any(content == recorded(key[0], other) for other in others):
                lines += differences(wanted[key], content)
        elif key in stale and got.content.get("reason") in DECIDED_AT_THE_CUT:
            suppressed.add(stale[key]["trigger_id"])
            names = ("customer_id", "cart_id", "kind", "step", "due_ms", "last_touch_ms")
            lines += differences(
                {name: stale[key][name] for name in names}, {name: got.content.get(name) for name in names}
            )
        else:
            verdict.ghost.append(f"{key[0]} {key[1]}: {got.content}")
        verdict.different += [f"{key[0]} {key[1]}: {line}" for line in lines]
    verdict.stale = len(suppressed)
    for (kind, _), times in seen.items():
        verdict.repeated[kind] += times - 1
    verdict.lost += [
        f"{kind} {key}: {content}"
        for (kind, key), content in wanted.items()
        if not seen[kind, key] and not (kind == "trigger" and key in suppressed)
    ]


@dataclass(frozen=True, slots=True)
class Decision:
    """A record of the triggers or outcomes topic."""

    ce_id: str
    key: bytes | None
    content: dict[str, Any]


def decisions_of(outputs: Outputs) -> list[tuple[tuple[str, str], int, Decision]]:
    """((kind, id), partition, record) of every record; a cancel has no id but its ce_id."""
    found = []
    for kind, log in (("trigger", outputs.triggers), ("outcome", outputs.outcomes)):
        for partition, records in log.items():
            for record in records:
                content = json.loads(record.value or b"{}")
                name = "cancel" if content.get("action") == "cancel" else kind
                ce_id = dict(record.headers).get("ce_id", b"(no ce_id)").decode()
                identity_of = ce_id if name == "cancel" else content.get(f"{name}_id", ce_id)
                found.append(((name, identity_of), partition, Decision(ce_id, record.key, content)))
    return found


def envelope_faults(kind: str, partition: int, got: Decision, partition_of: Mapping[str, int]) -> list[str]:
    """What is wrong with a decision's header, key, partition or idle time."""
    customer_id, lines = str(got.content.get("customer_id")), []
    if kind != "cancel" and got.ce_id != got.content.get(f"{kind}_id"):
        lines.append(f"ce_id is {got.ce_id}")
    if got.key != customer_id.encode():
        lines.append("the key is not the customer id")
    if partition_of.get(customer_id, partition) != partition:
        lines.append(f"stands in partition {partition}, the input in {partition_of[customer_id]}")
    if kind == "trigger" and got.content["idle_ms"] != got.content["emitted_ms"] - got.content["last_touch_ms"]:
        lines.append("idle_ms is not emitted_ms - last_touch_ms")
    return lines


def recorded(kind: str, decision: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of the record of a trigger or outcome of the fold."""
    if kind == "cancel":
        return cancel_of(decision)
    return {"action": "send", **decision} if kind == "trigger" else decision


def has_cancel(decision: Mapping[str, Any]) -> bool:
    """Whether a cancel comes with it; with a trigger never."""
    return decision.get("outcome") in CANCELLED_BY and bool(decision["trigger_ids"])


def cancel_of(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The cancel record that is written with an outcome."""
    names = ("trigger_ids", "customer_id", "cart_id", "occurred_at_ms")
    return {"action": "cancel", "reason": outcome["outcome"], **{name: outcome[name] for name in names}}


def stale_id(trigger: Mapping[str, Any]) -> str:
    """The outcome_id of a trigger that was suppressed at the cut."""
    parts = ("customer_id", "cart_id", "last_touch_ms")
    return identity("o1", *(trigger[name] for name in parts), "suppressed", trigger["step"])


# ---------------------------------------------------------------- rejected records


def compare_rejected(
    verdict: Verdict, result: Result, inputs: Mapping[TopicPartition, Sequence[FoldRecord]], rejected: Log
) -> None:
    """Every rejected record stands on the rejected topic with its reason, key, value and headers untouched."""
    originals = {
        (topic, partition, record.offset): record
        for (topic, partition), log in inputs.items()
        for record in (FoldRecord(*item) if type(item) is tuple else item for item in log)
    }
    seen: set[tuple[str, int, int]] = set()
    for records in rejected.values():
        for record in records:
            added = {
                name.removeprefix(CONNECT): value.decode() for name, value in record.headers if name.startswith(CONNECT)
            }
            key = (added.get("topic", ""), int(added.get("partition", -1)), int(added.get("offset", -1)))
            verdict.repeated["rejected"] += key in seen
            seen.add(key)
            want, got = result.rejected.get(key), added.get("exception.class.name")
            if want != got:
                verdict.rejected_differ.append(f"{key}: want {want or 'nothing'}, got {got}")
                continue
            original = originals[key]
            kept = [(name, value) for name, value in record.headers if not name.startswith(CONNECT)]
            if (record.key, record.value, kept) != (original.key, original.value, [tuple(h) for h in original.headers]):
                verdict.rejected_differ.append(f"{key}: key, value or headers were changed")
    verdict.rejected_differ += [
        f"{key}: want {why}, {GOT_NOTHING}" for key, why in result.rejected.items() if key not in seen
    ]


# ---------------------------------------------------------------- customers and scores


def compare_customers(verdict: Verdict, wanted: Customers, got: Customers) -> None:
    for customer_id in sorted({*wanted, *got}):
        if customer_id not in got:
            verdict.customers_differ.append(f"{customer_id}: want {wanted[customer_id]}, got nothing")
        elif customer_id not in wanted:
            verdict.customers_differ.append(f"{customer_id}: want nothing, got {got[customer_id]}")
        elif lines := differences(wanted[customer_id], got[customer_id]):
            verdict.customers_differ.append(f"{customer_id}: " + "; ".join(lines))


def compare_scores(verdict: Verdict, result: Result, scores: Log, score_min_delta: float) -> None:
    """The last score of each customer is the fold's, or so near that the contract published no newer one."""
    last = {
        (record.key or b"").decode(): json.loads(record.value)
        for records in scores.values()
        for record in records
        if record.value is not None
    }
    for customer_id in sorted({*result.customers, *last}):
        view, got = result.customers.get(customer_id), last.get(customer_id)
        if view is None or got is None:
            want_text = f"want {view['score']}" if view else WANT_NOTHING
            got_text = f"got {got['score']}" if got else GOT_NOTHING
            verdict.scores_differ.append(f"{customer_id}: {want_text}, {got_text}")
            continue
        if (got["rev"], got["as_of_ms"]) == (view["rev"], view["as_of_ms"]):
            lines = differences(score_record(result, customer_id), {**got, "model_version": None})
        else:
            lines = too_far(view, got, score_min_delta)
        if lines:
            verdict.scores_differ.append(f"{customer_id}: " + "; ".join(lines))


def score_record(result: Result, customer_id: str) -> dict[str, Any]:
    """The score record of the fold."""
    view = result.customers[customer_id]
    return {
        "customer_id": customer_id,
        "score": float(view["score"]),
        "contributions": {channel: float(text) for channel, text in view["contributions"].items()},
        "raw": {channel: round(value, 4) for channel, value in result.profiles[customer_id].raw().items()},
        "counters": view["counters"],
        "last_seen_ms": view["last_seen_ms"],
        "as_of_ms": view["as_of_ms"],
        "rev": view["rev"],
        "model_version": None,
    }


def too_far(view: Mapping[str, Any], got: Mapping[str, Any], score_min_delta: float) -> list[str]:
    """Why an older score record should have been followed by another."""
    lines = []
    if got["rev"] > view["rev"] or got["as_of_ms"] > view["as_of_ms"]:
        lines.append(
            f"is ahead of the fold: rev {got['rev']} of {view['rev']}, as_of {got['as_of_ms']} of {view['as_of_ms']}"
        )
    if round(abs(float(view["score"]) - got["score"]), 2) >= score_min_delta:
        lines.append(f"score: want {view['score']}, got {got['score']} at rev {got['rev']} of {view['rev']}")
    if view["as_of_ms"] - got["as_of_ms"] >= SCORE_AGE_MS:
        lines.append(f"as_of_ms: want {view['as_of_ms']}, got {got['as_of_ms']}")
    return lines


def differences(want: Any, got: Any, path: str = "") -> list[str]:
    """Readable lines `path: want x, got y`; [] where equal. Floats may differ by 1e-4: the last decimal may round."""
    if want == got:
        return []
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        names = sorted({*want, *got}, key=str)
        return [
            line
            for name in names
            for line in differences(want.get(name, "(absent)"), got.get(name, "(absent)"), f"{path}.{name}".lstrip("."))
        ]
    if isinstance(want, Sequence) and isinstance(got, Sequence) and not isinstance(want, str) and len(want) == len(got):
        pairs = enumerate(zip(want, got, strict=True))
        return [line for index, (left, right) in pairs for line in differences(left, right, f"{path}[{index}]")]
    if isinstance(want, float) and isinstance(got, int | float):
        return [] if abs(want - got) <= 1.01e-4 else [f"{path}: want {want}, got {got}"]
    return [f"{path}: want {want!r}, got {got!r}"]


# ---------------------------------------------------------------- Kafka


def read_topic(bootstrap: str, topic: str, *, read_committed: bool = False) -> dict[int, list[FoldRecord]]:
    """All records of a topic, partition -> log order, up to its end when the call began."""
    from kafka import KafkaConsumer
    from kafka import TopicPartition as Place

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if read_committed else "read_uncommitted",
        max_poll_records=5_000,
    )
    try:
        places = [Place(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic) or ())]
        logs: dict[int, list[FoldRecord]] = {place.partition: [] for place in places}
        if not places:
            return logs
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=500).items():
                logs[place.partition] += [
                    FoldRecord(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
                    for record in records
                    if record.offset < ends[place]
                ]
        return logs
    finally:
        consumer.close()
