"""The README's example of sending events, run as it stands: real Kafka, real Redis, a real worker."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.cli.tail import read_through
from streams.cli.topics import apply_topics
from streams.producer.client import EngagementProducer
from streams.settings import Settings
from tests.support.brokers import Brokers, Names

pytestmark = pytest.mark.integration

README = (Path(__file__).parents[2] / "README.md").read_text()
ADDRESS = '"127.0.0.1:9092"'
LINES_MAX = 5
OF_THE_MOMENT = {"trigger_id", "outcome_id", "trigger_ids", "step", *re.findall(r'"(\w+_ms)"', README)}
"""Fields that differ in each run: times, what follows from them, and the step, which is shorter here."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def settings(brokers: Brokers, names: Names) -> Settings:
    found = Settings.from_environ(
        {},
        {
            "KAFKA_BOOTSTRAP": brokers.bootstrap,
            "REDIS_URL": brokers.redis_url,
            "APP_ID": names.app_id,
            "TOPIC_PREFIX": names.topic_prefix,
            "PARTITIONS": "2",
            "CART_STEPS": "1s,1h",
            "LATENESS": "300ms",
            "COMMIT_INTERVAL": "200ms",
            "WEB_PORT": "0",
        },
    )
    apply_topics(found)
    return found


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A worker at work; yields its log."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PULSELINE_")}
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.worker", str(os.getpid())],
            env=environ | settings.environ(),
            stdout=out,
            stderr=out,
        )
    yield log
    process.terminate()
    process.wait(20)


def found(settings: Settings, suffix: str, log: Path, **wanted: str) -> dict[str, Any]:
    """The first record of an output topic with these values, within 60 s."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        for _, record in read_through(settings, (suffix,)):
            value: dict[str, Any] = json.loads(record.value)
            if value.items() >= wanted.items():
                return value
        time.sleep(0.2)
    pytest.fail(f"nothing in {suffix} with {wanted}:\n{log.read_text()[-3_000:]}")


def lasting(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in OF_THE_MOMENT}


def test_five_lines_of_python_give_the_trigger_and_the_outcome_shown(settings: Settings, worker: Path) -> None:
    """The code of the README, with nothing but another address, leads to its trigger, and an order to its outcome."""
    (code,) = blocks("python")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= LINES_MAX
    assert code.count(ADDRESS) == 1
    here = f'"{settings.kafka_bootstrap}", topic_prefix="{settings.topic_prefix}"'
    exec(compile(code.replace(ADDRESS, here), "README.md", "exec"), {})

    _, trigger, cancel, outcome, _ = (json.loads(block) for block in blocks("json"))
    sent = found(settings, "triggers.v1", worker, action="send")
    assert lasting(sent) == lasting(trigger)

    with EngagementProducer(settings.kafka_bootstrap, topic_prefix=settings.topic_prefix) as shop:
        order = {"order_id": outcome["order_id"], "total_minor": outcome["order_total_minor"], "currency": "EUR"}
        shop.send(type="order_completed", customer_id="c-1", **order)
    ended = found(settings, "outcomes.v1", worker, customer_id="c-1")
    assert lasting(ended) == lasting(outcome)
    assert ended["trigger_ids"] == [sent["trigger_id"]]
    assert lasting(found(settings, "triggers.v1", worker, action="cancel")) == lasting(cancel)
