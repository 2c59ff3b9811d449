"""The command line with everything behind it: one worker, real events, and the questions people ask."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.cli.checks import await_accounted
from streams.cli.tail import read_through
from streams.cli.topics import apply_topics
from streams.producer.client import EngagementProducer
from streams.producer.ledger import read_ledger
from streams.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(kafka_bootstrap, redis_url) -> Settings:
    mark = f"cli{os.getpid()}"
    found = Settings(
        kafka_bootstrap=kafka_bootstrap,
        redis_url=redis_url,
        app_id=mark,
        topic_prefix=mark,
        partitions=2,
        cart_steps=(("1s", 1_000), ("1m", 60_000)),
        lateness_ms=300,
        commit_interval_ms=200,
        web_port=0,
    )
    apply_topics(found)
    return found


@pytest.fixture(scope="module")
def environ(settings, tmp_path_factory) -> dict[str, str]:
    """The settings as a child gets them, in a folder without a .env of ours."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PULSELINE_")}
    return kept | settings.environ() | {"PULSELINE_STACK_DIR": str(tmp_path_factory.mktemp("stack"))}


@pytest.fixture(scope="module")
def worker(environ, tmp_path_factory) -> Iterator[subprocess.Popen]:
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "worker"], env=environ, stdout=out, stderr=subprocess.STDOUT
        )
        yield process
        if process.poll() is None:
            process.terminate()
        process.wait(20)


def pulseline(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def await_trigger(settings: Settings) -> dict:
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        for _, record in read_through(settings, ("triggers.v1",)):
            trigger = json.loads(record.value)
            if trigger["action"] == "send":
                return trigger
    raise AssertionError("no trigger within 30 s")


def test_settings_that_contradict_each_other_are_refused(environ):
    """A transaction twice a second is too much: exit code 2 and a message."""
    refused = pulseline(environ, "worker", "--processing-guarantee", "exactly_once", "--commit-interval", "500ms")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "PULSELINE_COMMIT_INTERVAL must be at least 1s" in refused.stderr


def test_an_abandoned_cart_is_watched_explained_and_shown(settings, environ, worker):
    """Five lines of SDK make a trigger; watch shows it live, explain says why, customer shows the cart it is about."""
    assert worker.poll() is None
    watching = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "watch", "--duration", "30s"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one signal, nothing else
    )
    assert watching.stdout is not None
    assert "0 scores" in watching.stdout.readline()
    with EngagementProducer(settings.kafka_bootstrap, topic_prefix=settings.topic_prefix) as producer:
        producer.send(type="page_viewed", customer_id="c|ł")
        producer.send(
            type="product_added",
            customer_id="c|ł",
            cart_id="A7",
            product_id="mug",
            name="Mug",
            unit_price_minor=1290,
            quantity=2,
            currency="EUR",
        )
        producer.send_raw(settings.topic("cart"), b"c-2", b"{broken")
    trigger = await_trigger(settings)
    seen = [watching.stdout.readline()]
    while trigger["trigger_id"] not in seen[-1]:
        assert seen[-1], "watch ended without the trigger"
        seen.append(watching.stdout.readline())
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)  # read to its end: whoever closes the pipe first makes it fail to write
    assert watching.returncode == 0
    assert any("rejected  NotJson" in line for line in seen)

    told = pulseline(environ, "explain", trigger["trigger_id"])
    assert (told.returncode, "Traceback" in told.stderr) == (0, False)
    assert "Customer c|ł left the cart A7 with 2 item(s), 25.80 EUR." in told.stdout
    assert "the trigger holds" in told.stdout

    shown = pulseline(environ, "customer", "c|ł", "--json")
    profile = json.loads(shown.stdout)
    assert (profile["rev"], profile["counters"]["product_added"]["1h"]) == (2, 1)
    assert [(cart["cart_id"], cart["fired"]) for cart in profile["carts"]] == [("A7", ["1s"])]
    plain = pulseline(environ, "customer", "c|ł").stdout
    assert "2 x Mug at 12.90 EUR" in plain

    nobody = pulseline(environ, "customer", "c-unknown")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no profile" in nobody.stderr


def test_everything_simulated_is_accounted_for(settings, environ, worker, tmp_path: Path):
    """A live minute in seconds: what the simulator's log holds is in Kafka, and the workers account for all of it."""
    log = tmp_path / "sent.jsonl"
    _, before = await_accounted(settings, 30)
    arguments = ("--duration", "6s", "--rate", "150", "--dirty", "3%", "--duplicates", "2%", "--log", str(log))
    ran = pulseline(environ, "simulate", *arguments)
    assert ran.returncode == 0, ran.stderr
    ledger = read_ledger(log)
    assert f"{ledger.records} records sent" in ran.stdout
    assert {"dirty", "duplicate"} < ledger.counts.keys()
    in_log, account = await_accounted(settings, 30)
    assert in_log == account.records
    assert account.sent - before.sent == ledger.records
    assert account.outcomes["rejected"] - before.outcomes["rejected"] == ledger.counts["dirty"]
    assert account.outcomes["duplicate"] > 0


def test_a_worker_stops_in_time_and_says_so_by_its_exit_code(worker):
    """SIGTERM: exit code 0 in under 10 s."""
    begun_s = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    assert time.monotonic() - begun_s < 10
