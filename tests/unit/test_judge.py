"""The judge finds every kind of fault, and none where there is none."""

import copy
import json
from typing import Any

import pytest

from tests.support.fold import FoldRecord, Result
from tests.support.fold_carts import identity
from tests.support.judge import Outputs, Verdict, cancel_of, compare, differences, has_cancel, score_record
from tests.support.log_builder import LogBuilder, at

ZEROES = {"clickstream": 0.0, "cart": 0.0, "email": 0.0, "social": 0.0}


@pytest.fixture
def made() -> LogBuilder:
    """Two triggers, a resumed with its cancel, a recovered with its own, a rejected record."""
    log = LogBuilder().put("product_added", 0, cart_id="ą").put("product_added", 20, cart_id="ą").put("page_viewed", 20)
    log.raw("clickstream", b"{", 21, headers=(("trace", b"1"),))
    return log.put("order_completed", 40).pass_time(41)


class Written:
    """What a worker without fault writes for a log; tests then spoil it."""

    def __init__(self, made: LogBuilder) -> None:
        self.inputs = made.logs
        self.result: Result = made.result
        self.customers: dict[str, Any] = copy.deepcopy(self.result.customers)
        self.account = copy.deepcopy(self.result.account)
        self.triggers = [self.trigger(content) for content in self.result.triggers.values()]
        self.outcomes = [record("outcome_id", content) for content in self.result.outcomes.values()]
        for outcome in filter(has_cancel, self.result.outcomes.values()):
            self.triggers.append(record("outcome_id", cancel_of(outcome), outcome["outcome_id"]))
        self.rejected = [self.refused(*place, reason) for place, reason in self.result.rejected.items()]
        self.scores = [
            record("customer_id", {**score_record(self.result, customer_id), "model_version": "default-00000000"})
            for customer_id in self.result.customers
        ]

    @staticmethod
    def trigger(content: dict[str, Any], emitted_ms: int = at(50)) -> FoldRecord:
        known = {"emitted_ms": emitted_ms, "idle_ms": emitted_ms - content["last_touch_ms"], "score": 1.0}
        return record(
            "trigger_id",
            {"action": "send", **content, **known, "contributions": ZEROES, "model_version": "default-00000000"},
        )

    def refused(self, topic: str, partition: int, offset: int, reason: str) -> FoldRecord:
        original = self.inputs[topic, partition][offset]
        added = {"topic": topic, "partition": partition, "offset": offset, "exception.class.name": reason}
        headers = [(f"__connect.errors.{name}", str(value).encode()) for name, value in added.items()]
        return original._replace(headers=[*original.headers, *headers])

    def verdict(self, **options: Any) -> Verdict:
        outputs = Outputs({0: self.triggers}, {0: self.outcomes}, {0: self.rejected}, {0: self.scores})
        return compare(self.result, self.inputs, outputs, self.customers, account=self.account, **options)

    def faults(self, **options: Any) -> dict[str, int]:
        return {name: len(lines) for name, lines in self.verdict(**options).faults.items() if lines}


def record(id_name: str, content: dict[str, Any], ce_id: str = "") -> FoldRecord:
    headers = [("ce_id", (ce_id or content[id_name]).encode())]
    return FoldRecord(0, 0, content["customer_id"].encode(), json.dumps(content).encode(), headers)


def changed(old: FoldRecord, **fields: Any) -> FoldRecord:
    return old._replace(value=json.dumps({**json.loads(old.value or b""), **fields}).encode())


def test_no_fault_is_found_where_there_is_none(made: LogBuilder) -> None:
    written = Written(made)
    verdict = written.verdict()
    assert verdict.ok, verdict.text()
    assert (verdict.decisions, verdict.customers, verdict.records) == (4, 1, 6)
    assert len(written.triggers) == 4


def test_repetitions_are_counted_and_may_be_emitted_later(made: LogBuilder) -> None:
    """At least once: the same id and content again is no fault."""
    written = Written(made)
    written.triggers.append(written.trigger(next(iter(written.result.triggers.values())), emitted_ms=at(60)))
    written.rejected.append(written.rejected[0])
    verdict = written.verdict()
    assert verdict.ok
    assert verdict.repeated_same_id == 2


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_lost_trigger_or_cancel_is_found(made: LogBuilder, place: int) -> None:
    written = Written(made)
    del written.triggers[place]
    assert written.faults() == {"lost": 1}


def test_a_lost_outcome_is_found(made: LogBuilder) -> None:
    written = Written(made)
    del written.outcomes[0]
    assert written.faults() == {"lost": 1}


def test_a_ghost_is_found(made: LogBuilder) -> None:
    """An id that the fold did not decide."""
    written = Written(made)
    written.triggers.append(
        record("trigger_id", {**json.loads(written.triggers[0].value or b""), "trigger_id": "f" * 32})
    )
    assert written.faults() == {"ghost": 1}


@pytest.mark.parametrize(
    "fields",
    [{"items_count": 9}, {"idle_ms": 1}, {"last_touch_ms": 1, "idle_ms": at(50) - 1}, {"currency": "EUR"}, {"new": 1}],
)
def test_other_content_under_a_known_id_is_found(made: LogBuilder, fields: dict[str, Any]) -> None:
    written = Written(made)
    written.triggers[0] = changed(written.triggers[0], **fields)
    assert written.faults() == {"different content": 1}


def test_a_wrong_envelope_is_found(made: LogBuilder) -> None:
    """The key is the customer, ce_id the id, the partition that of the input."""
    written = Written(made)
    written.triggers[0] = written.triggers[0]._replace(key=b"other")
    written.outcomes[0] = written.outcomes[0]._replace(headers=())
    assert written.faults() == {"different content": 2}
    outputs = Outputs({1: written.triggers[1:]}, {}, {}, {})
    elsewhere = compare(written.result, {}, outputs, {})
    assert sum("stands in partition 1" in line for line in elsewhere.different) == 3


def test_a_step_suppressed_as_stale_is_no_loss_where_allowed(made: LogBuilder) -> None:
    """Wall time may turn a trigger into a suppressed outcome; should both be there, the trigger counts."""
    written = Written(made)
    trigger = next(iter(written.result.triggers.values()))
    names = ("customer_id", "cart_id", "kind", "step", "due_ms", "last_touch_ms")
    suppressed = {name: trigger[name] for name in names} | {
        "outcome_id": identity("o1", "c", "ą", at(0), "suppressed", "15m"),
        "outcome": "suppressed",
        "reason": "stale",
    }
    written.outcomes.append(record("outcome_id", suppressed))
    assert written.faults(stale_allowed=True) == {}
    del written.triggers[0]
    assert written.faults(stale_allowed=True) == {}
    assert written.verdict(stale_allowed=True).stale == 1
    assert written.faults() == {"lost": 1, "ghost": 1}


def test_wrong_state_is_found_and_told_readably(made: LogBuilder) -> None:
    """Customer, path, want, got."""
    written = Written(made)
    written.customers["c"]["counters"]["page_viewed"]["1h"] = 7
    written.customers["ghost"] = {}
    verdict = written.verdict()
    assert "customers differ: c: counters.page_viewed.1h: want 1, got 7" in verdict.text()
    assert len(verdict.customers_differ) == 2
    assert Written(made).verdict().ok


def test_a_lost_customer_and_a_wrong_account_are_found(made: LogBuilder) -> None:
    written = Written(made)
    written.customers.clear()
    written.account["engagement.cart.v1", 0]["applied"] += 1
    assert written.faults() == {"customers differ": 1, "accounts differ": 1}


def test_rejected_records_are_compared_whole(made: LogBuilder) -> None:
    """Missing, unknown, for another reason, or changed on the way."""
    spoilt = Written(made)
    spoilt.rejected[0] = spoilt.rejected[0]._replace(value=b"changed")
    assert spoilt.faults() == {"rejected differ": 1}
    other = Written(made)
    other.rejected = [other.refused("engagement.clickstream.v1", 0, 1, "NotAnObject")]
    assert other.faults() == {"rejected differ": 1}
    ghost = Written(made)
    ghost.rejected.append(ghost.refused("engagement.clickstream.v1", 0, 0, "NotJson"))
    assert ghost.faults() == {"rejected differ": 1}
    lost = Written(made)
    lost.rejected.clear()
    assert lost.faults() == {"rejected differ": 1}


def test_scores_may_lag_by_less_than_the_contract_publishes(made: LogBuilder) -> None:
    """The last record is the fold's, or within 0.5 points and 60 s of it."""
    score, as_of_ms = (Written(made).result.customers["c"][name] for name in ("score", "as_of_ms"))
    for fields, fault in (
        ({"rev": 3, "score": float(score) - 0.49}, False),
        ({"rev": 3, "score": round(float(score) - 0.5, 2)}, True),
        ({"rev": 3, "as_of_ms": as_of_ms - 59_999}, False),
        ({"rev": 3, "as_of_ms": as_of_ms - 60_000}, True),
        ({"rev": 5}, True),
        ({"score": float(score) - 0.01}, True),
        ({"raw": ZEROES}, True),
    ):
        written = Written(made)
        written.scores[0] = changed(written.scores[0], **fields)
        assert (written.faults() == {"scores differ": 1}) is fault, fields
    written = Written(made)
    written.scores.clear()
    assert written.faults() == {"scores differ": 1}


def test_differences_name_the_path() -> None:
    want = {"a": [{"b": 1}], "c": 1.0, "d": "x"}
    assert differences(want, {"a": [{"b": 2}], "c": 1.00005, "e": 3}) == [
        "a[0].b: want 1, got 2",
        "d: want 'x', got '(absent)'",
        "e: want '(absent)', got 3",
    ]
    assert differences([1], [1, 2]) == [": want [1], got [1, 2]"]


def test_the_text_is_cut(made: LogBuilder) -> None:
    written = Written(made)
    written.triggers.clear()
    text = written.verdict().text(lines_max=1)
    assert "4 lost" in text
    assert "... 3 more" in text
