"""Every record that is written is one that the contract describes."""

import json
from random import Random
from typing import Any

import pytest
from pydantic import TypeAdapter

from models.outputs import Metric, Outcome, RejectedHeaders, Score, TriggerCancelled, TriggerSent, trigger_id
from streams.processing.metrics_publisher import MetricsPublisher
from streams.producer.plan import HARSH, Script, plan
from tests.support.history import drain, history_world, load
from tests.support.world import OUTCOMES, REJECTED, SCORES, TRIGGERS

pytestmark = pytest.mark.asyncio
CLASS_OF: dict[str, Any] = {
    SCORES: Score,
    TRIGGERS: TriggerSent | TriggerCancelled,
    OUTCOMES: Outcome,
    "engagement.metrics.v1": Metric,
}


async def test_every_record_written_fits_the_contract() -> None:
    """A storm of shoppers gives records of all kinds; each has the contract's fields, headers and identity."""
    world = history_world()
    script = Script(seed=3, shoppers=60, events=1_500, duration_ms=2 * 86_400_000, stories=HARSH, dirty=0.02)
    load(world, plan(script))
    worker = await world.started()
    await drain(world, worker, Random(3))
    await MetricsPublisher(world.store, worker.log, world.clock, world.plan).tick(worker.processor.tasks)
    for topic, contract in CLASS_OF.items():
        adapter: TypeAdapter[Any] = TypeAdapter(contract)
        records = world.broker.outputs[topic]
        assert records
        for record in records:
            assert record.value is not None
            adapter.validate_json(record.value, strict=True)
            headers = dict(record.headers)
            value = json.loads(record.value)
            assert headers["ce_specversion"] == b"1.0"
            assert headers["ce_source"] == b"/pulseline/test"
            assert headers["ce_type"].decode() == topic.removeprefix("engagement.")
            assert record.key == headers["ce_subject"] == str(value.get("customer_id", value.get("metric"))).encode()
    for record in world.broker.outputs[REJECTED]:
        assert not [name for name, _ in record.headers if name.startswith("ce_")]
        RejectedHeaders.read_from(list(record.headers))
    for value in world.published(TRIGGERS):
        if value["action"] == "send":
            parts = value["customer_id"], value["cart_id"], value["last_touch_ms"], value["step"]
            assert value["trigger_id"] == trigger_id(*parts)
            assert value["items_count"] == sum(item["quantity"] for item in value["items"])
