"""The judge on a real log: read whole, folded, and held against what somebody wrote."""

import json

import pytest
from kafka import KafkaProducer

from models.topics import INPUT_TOPICS, OUTPUT_TOPICS
from tests.support.brokers import create_topics
from tests.support.fold import FoldRecord, fold
from tests.support.judge import judge, read_topic

pytestmark = pytest.mark.integration

NOW_MS = 1_700_000_000_000


def event(kind: str, number: int, **fields: object) -> bytes:
    return json.dumps(
        {"event_id": f"e{number}", "type": kind, "customer_id": "c", "occurred_at_ms": NOW_MS, **fields}
    ).encode()


def test_judge_reads_real_topics_to_their_end(kafka_bootstrap, names):
    """Aborted records and markers are passed over; keys, headers and timestamps arrive as they were sent."""
    topics = {suffix: names.topic(suffix) for suffix in (*INPUT_TOPICS, *OUTPUT_TOPICS)}
    create_topics(kafka_bootstrap, *topics.values(), partitions=2, **{"message.timestamp.type": "CreateTime"})
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=names.app_id)
    sent = [
        ("cart.v1", event("product_added", 1, product_id="p"), [("trace", b"1")]),
        ("cart.v1", event("product_added", 1, product_id="p"), []),
        ("clickstream.v1", b"{", []),
    ]
    try:
        producer.init_transactions()
        for keep in (True, False):
            producer.begin_transaction()
            for suffix, value, headers in sent:
                producer.send(topics[suffix], value, b"c", headers, partition=1, timestamp_ms=NOW_MS)
            producer.flush()
            (producer.commit_transaction if keep else producer.abort_transaction)()
    finally:
        producer.close()

    log = read_topic(kafka_bootstrap, topics["cart.v1"], read_committed=True)
    want = [FoldRecord(n, NOW_MS, b"c", value, tuple(headers)) for n, (_, value, headers) in enumerate(sent[:2])]
    assert log == {0: [], 1: want}

    customers = fold({(topics["cart.v1"], 1): log[1]}).customers
    account = {
        (topics[suffix], partition): {"applied": 0, "duplicate": 0, "rejected": 0}
        for suffix in INPUT_TOPICS
        for partition in (0, 1)
    }
    account[topics["cart.v1"], 1] = {"applied": 1, "duplicate": 1}
    account[topics["clickstream.v1"], 1] = {"rejected": 1}
    verdict = judge(
        kafka_bootstrap, names.topic_prefix, {}, lambda: customers, read_account=lambda: account, read_committed=True
    )
    assert {name: len(lines) for name, lines in verdict.faults.items() if lines} == {
        "rejected differ": 1,  # nobody wrote the rejected record or the score
        "scores differ": 1,
    }
    assert verdict.records == 3
