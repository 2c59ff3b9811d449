"""The simulator's plan: the same for the same seed, full of what it promises, and honest about what it planned."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from aiokafka.partitioner import murmur2

from models.codec import FUTURE_MS, RecordRejected, codec_for
from models.outputs import REJECT_REASONS, trigger_id
from streams.producer.dirt import DIRT
from streams.producer.plan import HARSH, Planned, Script, count, plan
from streams.producer.simulator import Replies
from streams.producer.stories import STORIES

HOUR_MS = 3_600_000
SCRIPT = Script(
    seed=7,
    shoppers=800,
    duration_ms=3 * HOUR_MS,
    events=8_000,
    stories=HARSH,
    dirty=0.01,
    duplicates=0.02,
    out_of_order=0.05,
)


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return list(plan(SCRIPT))


def test_the_same_seed_plans_the_same_bytes(planned):
    """A plan is a pure function of its script; another seed gives another one."""
    assert list(plan(SCRIPT)) == planned
    assert list(plan(replace(SCRIPT, seed=8))) != planned


def test_a_plan_is_in_the_order_of_sending_and_nothing_is_sent_before_it_happened(planned):
    """Records come by send_ms, and no clean event is from the future."""
    assert all(earlier.send_ms <= later.send_ms for earlier, later in pairwise(planned))
    assert all(record.fields["occurred_at_ms"] <= record.send_ms for record in planned if record.fields is not None)


def test_clean_events_are_accepted_and_dirty_ones_rejected_for_the_planned_reason(planned):
    """The contract's own decoder agrees with every label."""
    for record in planned:
        wanted = record.label.removeprefix("dirty:") if record.fields is None else None
        try:
            codec_for(record.topic).read(record.key, record.value, record.send_ms)
            found = None
        except RecordRejected as refusal:
            found = refusal.reason
        assert found == wanted, record


def test_dirt_has_every_reason_that_a_producer_can_cause():
    """Only HandlerError, an error of ours, cannot be provoked from outside."""
    assert {reason for reason, _ in DIRT} == set(REJECT_REASONS) - {"HandlerError"}


def test_shares_are_kept(planned):
    """1 % dirty, 2 % duplicates, 5 % out of order, each within a third."""
    counts = count(planned)
    dirty = sum(number for label, number in counts.items() if label.startswith("dirty:"))
    assert counts["records"] == SCRIPT.events
    assert dirty / counts["records"] == pytest.approx(0.01, rel=0.33)
    assert counts["duplicate"] / counts["records"] == pytest.approx(0.02, rel=0.33)
    delayed = [
        record
        for record in planned
        if record.fields is not None
        and record.label != "duplicate"
        and 50 < record.send_ms - record.fields["occurred_at_ms"] <= SCRIPT.lateness_ms
    ]
    assert len(delayed) / counts["records"] == pytest.approx(0.05, rel=0.33)


def test_every_rule_of_carts_is_visited_in_the_promised_numbers(planned):
    """200,000 events hold 500 late cart events, 100 late orders, 100 re-arms, 50 take-overs and repeats."""
    counts = count(planned)
    for label, least in (
        ("late_cart_event", 500),
        ("late_order", 100),
        ("rearmed", 100),
        ("taken_over", 50),
        ("repeated_order", 50),
    ):
        assert counts[label] >= least * counts["records"] / 200_000, label
    assert {record.fields["type"] for record in planned if record.fields is not None} >= {
        "identity_linked",
        "cart_cleared",
        "cart_updated",
        "product_removed",
        "order_cancelled",
        "order_refunded",
        "audience_counted",
        "email_link_clicked",
    }


def test_late_events_are_really_late(planned):
    """Nine in ten of those planned late come after their partition's watermark passed them."""
    watermarks: dict[int, int] = defaultdict(lambda: -1)
    late: Counter[bool] = Counter()
    for record in planned:
        if record.topic != "cart.v1" or record.fields is None:
            continue
        task = (murmur2(record.key) & 0x7FFFFFFF) % 4
        occurred_ms = record.fields["occurred_at_ms"]
        if record.label in {"late_cart_event", "late_order"}:
            late[occurred_ms < watermarks[task]] += 1
        watermarks[task] = max(watermarks[task], min(occurred_ms, record.send_ms) - SCRIPT.lateness_ms)
    assert late[True] > 9 * late[False]


def test_duplicates_repeat_an_event_that_is_in_the_plan(planned):
    """A duplicate has the event_id and the fields of another record."""
    originals = {r.fields["event_id"]: r.fields for r in planned if r.fields is not None and r.label != "duplicate"}
    duplicates = [record for record in planned if record.label == "duplicate"]
    assert duplicates
    assert all(originals[record.fields["event_id"]] == record.fields for record in duplicates)


def test_clicks_on_triggers_carry_the_ids_that_the_contract_gives_them():
    """Shoppers of a plan know the trigger_id in advance, because it is a pure function of the cart's last touch."""
    script = Script(seed=3, shoppers=50, events=400, stories={"recover": 1.0})
    touches: dict[tuple[str, str | None], int] = {}
    clicks = 0
    for record in plan(script):
        fields = record.fields
        assert fields is not None
        if fields["type"] == "product_added":
            touches[fields["customer_id"], fields.get("cart_id")] = fields["occurred_at_ms"]
        if fields["type"] == "email_link_clicked":
            clicks += 1
            known = {
                trigger_id(customer, cart, touch_ms, "15m")
                for (customer, cart), touch_ms in touches.items()
                if customer == fields["customer_id"]
            }
            assert fields["trigger_id"] in known
    assert clicks > 10


def test_a_plan_without_a_number_of_records_ends_with_its_duration():
    """Every story that began within the duration is told to its end."""
    script = Script(seed=1, shoppers=20, duration_ms=HOUR_MS, records_per_s=1.0, steps=(("15s", 15_000),))
    records = list(plan(script))
    assert 1_000 < len(records) < 10_000
    assert records[-1].send_ms < script.start_ms + 3 * HOUR_MS


@pytest.mark.parametrize("story", sorted(STORIES))
def test_every_story_can_open_a_plan(story):
    """Each story tells at least one event, at or after the start."""
    script = Script(seed=2, shoppers=5, duration_ms=0, opening=(story,), steps=(("15s", 15_000), ("30s", 30_000)))
    records = list(plan(script))
    assert records
    assert all(record.fields["occurred_at_ms"] >= script.start_ms for record in records if record.fields is not None)


TRIGGER = {
    "trigger_id": "913e221bbf3369fc75e05203c1e1aa02",
    "action": "send",
    "step": "15s",
    "customer_id": "c-1",
    "cart_id": None,
    "total_minor": 1_290,
    "currency": "EUR",
}


def test_shoppers_answer_triggers_with_their_real_ids():
    """Mail, click and order follow a trigger, in this order, all acceptable, all about that trigger and cart."""
    replies = Replies(seed=1, clicking=1.0, ordering=1.0)
    records = replies.to(TRIGGER, 1_700_000_000_000)
    assert [json.loads(record.value or b"")["type"] for record in records] == [
        "email_sent",
        "email_delivered",
        "email_opened",
        "email_link_clicked",
        "order_completed",
    ]
    assert all(earlier.send_ms <= later.send_ms for earlier, later in pairwise(records))
    for record in records:
        codec_for(record.topic).read(record.key, record.value, record.send_ms + FUTURE_MS)
    assert {record.fields.get("trigger_id") for record in records[:4] if record.fields} == {TRIGGER["trigger_id"]}
    assert len(Replies(seed=1, clicking=0.0).to(TRIGGER, 0)) == 2
