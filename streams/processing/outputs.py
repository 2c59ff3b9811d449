"""From decisions to records: triggers, cancels, outcomes, scores, rejected, with their CloudEvents headers."""

from collections.abc import Sequence
from typing import Any

import msgspec

from models.codec import RecordRejected
from models.outputs import RejectedHeaders, cloudevent_headers, score_id
from streams.engagement.decisions import DueStep, Outcome
from streams.engagement.profile import Profile
from streams.engagement.scoring import Score
from streams.processing.plan import Plan
from streams.processing.ports import LogRecord, OutRecord

CANCELLING = frozenset(("resumed", "recovered", "closed", "emptied", "merged"))
_encode = msgspec.json.Encoder().encode


class StoredOutputs(msgspec.Struct, array_like=True):
    """`o`: the outputs of the last commit, triggers and outcomes in full, scores as customer ids.

    Exactly once, rejected records are there too, which may have headers without a value.
    """

    records: list[tuple[str, bytes | None, bytes | None, list[tuple[str, Any]], int | None]] = []
    scored: list[str] = []


def pack_outputs(records: Sequence[OutRecord], scored: list[str]) -> bytes:
    """Encode what a commit publishes; records are those with `at`."""
    if not records and not scored:
        return b""
    rows = [(r.topic, r.key, r.value, list(r.headers), r.at) for r in records]
    return msgspec.msgpack.encode(StoredOutputs(rows, scored))


def unpack_outputs(partition: int, packed: bytes) -> tuple[list[OutRecord], list[str]]:
    """Decode `o` into (records with their `at`, ids of customers whose score was published)."""
    if not packed:
        return [], []
    stored = msgspec.msgpack.decode(packed, type=StoredOutputs)
    return [
        OutRecord(topic, partition, key, value, headers, at) for topic, key, value, headers, at in stored.records
    ], stored.scored


class Decision:
    """A due step or an outcome, decided at a cart offset; of a step the score as known then."""

    __slots__ = ("at", "score", "what")

    def __init__(self, what: DueStep | Outcome, at: int, score: Score | None) -> None:
        self.what, self.at, self.score = what, at, score


class OutputWriter:
    """Turns the decisions of one task into the records of the contract."""

    def __init__(self, plan: Plan, partition: int) -> None:
        self.plan, self.partition = plan, partition
        self._source = plan.app_id
        self._model = plan.rules.score_model

    def decided(self, decisions: Sequence[Decision], now_ms: int) -> list[OutRecord]:
        """Records of the decisions, cut at wall time now_ms; a step that went stale becomes a suppressed outcome."""
        records: list[OutRecord] = []
        limit = self.plan.trigger_max_staleness_ms
        for decision in decisions:
            what = decision.what
            if isinstance(what, DueStep):
                if limit and now_ms - what.due_ms > limit:
                    records.append(self._outcome(stale(what), decision.at, now_ms))
                else:
                    records.append(self._trigger(what, decision, now_ms))
            else:
                records.append(self._outcome(what, decision.at, now_ms))
                if what.trigger_ids and what.outcome in CANCELLING:
                    records.append(self._cancel(what, decision.at, now_ms))
        return records

    def score(self, profile: Profile, now_ms: int, score: Score | None = None) -> OutRecord:
        """The customer's score record; score: where it is known already."""
        ce_id = score_id(profile.customer_id, profile.rev, profile.as_of_ms)
        return self._record(
            self.plan.scores_topic,
            "scores.v1",
            profile.customer_id,
            ce_id,
            profile.score_record(self._model, score),
            now_ms,
            None,
        )

    def _trigger(self, step: DueStep, decision: Decision, now_ms: int) -> OutRecord:
        score = decision.score
        assert score is not None  # noqa: S101 - of every step
        value = {
            "action": "send",
            "trigger_id": step.trigger_id,
            "kind": step.kind,
            "step": step.step,
            "customer_id": step.customer_id,
            "cart_id": step.cart_id,
            "items": step.items,
            "items_count": sum(item["quantity"] for item in step.items),
            "total_minor": step.total_minor,
            "currency": step.currency,
            "shipping_minor": step.shipping_minor,
            "checkout_url": step.checkout_url,
            "last_touch_ms": step.last_touch_ms,
            "due_ms": step.due_ms,
            "emitted_ms": now_ms,
            "idle_ms": now_ms - step.last_touch_ms,
            "score": score.hundredths / 100,
            "contributions": {channel: part / 100 for channel, part in score.contributions.items()},
            "model_version": self._model.version,
        }
        return self._record(
            self.plan.triggers_topic, "triggers.v1", step.customer_id, value["trigger_id"], value, now_ms, decision.at
        )

    def _outcome(self, outcome: Outcome, at: int, now_ms: int) -> OutRecord:
        value = {
            "outcome_id": outcome.outcome_id,
            "outcome": outcome.outcome,
            "customer_id": outcome.customer_id,
            "cart_id": outcome.cart_id,
            "kind": outcome.kind,
            "step": outcome.step,
            "due_ms": outcome.due_ms,
            "last_touch_ms": outcome.last_touch_ms,
            "trigger_ids": outcome.trigger_ids,
            "order_id": outcome.order_id,
            "cart_total_minor": outcome.cart_total_minor,
            "order_total_minor": outcome.order_total_minor,
            "currency": outcome.currency,
            "occurred_at_ms": outcome.occurred_at_ms,
            "reason": outcome.reason,
            "first_due_ms": outcome.first_due_ms,
        }
        return self._record(
            self.plan.outcomes_topic, "outcomes.v1", outcome.customer_id, value["outcome_id"], value, now_ms, at
        )

    def _cancel(self, outcome: Outcome, at: int, now_ms: int) -> OutRecord:
        value = {
            "action": "cancel",
            "trigger_ids": outcome.trigger_ids,
            "customer_id": outcome.customer_id,
            "cart_id": outcome.cart_id,
            "reason": outcome.outcome,
            "occurred_at_ms": outcome.occurred_at_ms,
        }
        return self._record(
            self.plan.triggers_topic, "triggers.v1", outcome.customer_id, outcome.outcome_id, value, now_ms, at
        )

    def _record(
        self, topic: str, suffix: str, customer: str, ce_id: Any, value: dict[str, Any], now_ms: int, at: int | None
    ) -> OutRecord:
        headers = cloudevent_headers(self._source, suffix, ce_id, now_ms, customer)
        return OutRecord(topic, self.partition, customer.encode(), _encode(value), headers, at)


def stale(step: DueStep) -> Outcome:
    """The suppressed outcome of a step that was due too long ago when it was to be published."""
    return Outcome(
        outcome="suppressed",
        customer_id=step.customer_id,
        cart_id=step.cart_id,
        kind=step.kind,
        last_touch_ms=step.last_touch_ms,
        trigger_ids=step.trigger_ids,
        occurred_at_ms=step.due_ms,
        step=step.step,
        due_ms=step.due_ms,
        cart_total_minor=step.total_minor,
        currency=step.currency,
        reason="stale",
        first_due_ms=step.first_due_ms,
    )


def rejected_record(plan: Plan, topic: str, partition: int, record: LogRecord, rejection: RecordRejected) -> OutRecord:
    """The record untouched, with Kafka Connect's error headers naming where it was and why it was refused."""
    why = RejectedHeaders(
        topic=topic, partition=partition, offset=record.offset, reason=rejection.reason, message=rejection.message
    )
    return OutRecord(plan.rejected_topic, partition, record.key, record.value, why.appended_to(record.headers))
