"""A worker whose brokers are away: it says so to whoever asks, not too often in its log, and stops when told to."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.stack.ports import pick
from tests.support.brokers import Brokers, Names, run_brokers
from tests.support.site import Program, Site, stop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TASKS = 16
STOP_S = 10
LINES_A_MINUTE = 30


@pytest.fixture(scope="module")
def breakable() -> Iterator[Brokers]:
    with run_brokers() as running:
        yield running


class Asked:
    """A worker's answers over HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> tuple[int, str]:
        """(status, body); status 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, ""

    def ready(self) -> tuple[int, str]:
        status, body = self.get("/health/ready")
        reasons = "; ".join(json.loads(body)["reasons"]) if body else ""
        return status, reasons

    def numbers(self) -> dict[str, int]:
        """Each metric with its labels, as the exposition has them."""
        body = self.get("/metrics")[1]
        pairs = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
        return {name: int(value) for name, _, value in pairs}


@pytest.mark.parametrize(
    ("away_s", "back"),
    [pytest.param(5.0, False, id="short"), pytest.param(60.0, True, id="long", marks=pytest.mark.chaos_long)],
)
def test_a_worker_without_brokers_is_not_ready_logs_little_and_stops_in_time(
    breakable: Brokers, names: Names, tmp_path: Path, away_s: float, back: bool
) -> None:
    """Redis dies, then Kafka too: 503 with the reason of each; where they come back it counts on.

    SIGTERM ends it in time with both dead. Meanwhile 16 tasks write at most 30 lines a minute, and tell how many not.
    """
    port = pick()
    asked = Asked(port)
    site = Site(breakable, names, tmp_path, PARTITIONS=str(TASKS), REQUEST_TIMEOUT="10s", REDIS_TIMEOUT="2s")
    try:
        worker = site.run(WEB_PORT=str(port), LOG_FORMAT="json")
        site.wait("it is ready", lambda: asked.ready() == (200, ""))
        site.send(50)
        site.wait_served()
        check_counters(asked, names)
        healthy = site.call("pulseline", "health", WEB_PORT=str(port))
        assert (healthy.process.returncode, healthy.log) == (0, "ready\n")
        lines = len(worker.log.splitlines())
        break_both(site, asked, worker)
        time.sleep(away_s)
        check_quiet(worker, lines, asked)
        unwell = site.call("pulseline", "health", WEB_PORT=str(port))
        assert (unwell.process.returncode, unwell.log.startswith("not ready: Kafka does not answer")) == (1, True)
        if back:
            assert "committed nothing" in asked.ready()[1]
            come_back(site, asked)
            break_both(site, asked, worker)
        code, seconds = stop(worker)
        assert (code, seconds < STOP_S) == (0, True), worker.log[-2_000:]
        assert "cut off" not in worker.log
        assert all(json.loads(line)["message"] for line in worker.log.splitlines())
    finally:
        site.end()
        for server in (breakable.redis, breakable.kafka):
            server.kill()
            server.start()


def break_both(site: Site, asked: Asked, worker: Program) -> None:
    """Kill Redis, then Kafka; the worker lives, and tells of each."""
    site.brokers.redis.kill()
    site.wait("it is not ready", lambda: "Redis" in asked.ready()[1])
    assert asked.ready()[0] == 503
    site.brokers.kafka.kill()
    site.wait("it says of both", lambda: all(who in asked.ready()[1] for who in ("Redis", "Kafka")))
    assert asked.get("/health/live")[0] == 200
    assert worker.running


def come_back(site: Site, asked: Asked) -> None:
    """With both back the worker is ready again and counts on."""
    site.brokers.kafka.start()
    site.brokers.redis.start()
    site.wait("it is ready again", lambda: asked.ready() == (200, ""), 90)
    site.send(50)
    site.wait_served(90)


def check_counters(asked: Asked, names: Names) -> None:
    """Every record is accounted for in the metrics, and the worker owns all tasks."""
    numbers = asked.numbers()
    applied = re.compile(rf'pulseline_records{{topic="{re.escape(names.topic("clickstream.v1"))}".*how="applied"}}')
    assert sum(value for name, value in numbers.items() if applied.match(name)) == 50
    assert (numbers["pulseline_tasks_owned"], numbers["pulseline_tasks_claimed"]) == (TASKS, TASKS)


def check_quiet(worker: Program, before: int, asked: Asked) -> None:
    """What was logged since the brokers died."""
    lines = worker.log.splitlines()[before:]
    minutes = max(1.0, (json.loads(lines[-1])["time_ms"] - json.loads(lines[0])["time_ms"]) / 60_000)
    numbers = asked.numbers()
    held_back = numbers["pulseline_log_lines_held_back_total"]
    waits = sum(value for name, value in numbers.items() if name.startswith("pulseline_backoffs_total"))
    print(f"{len(lines)} lines in {minutes:.1f} min with Kafka and Redis away, {held_back} held back, {waits} waits")
    assert len(lines) <= LINES_A_MINUTE * minutes
    assert held_back > 0
    assert waits > 0


def test_a_taken_port_is_told_and_the_worker_goes_on(brokers: Brokers, names: Names, tmp_path: Path) -> None:
    """Two workers with one port: the second serves all the same, and says which setting to change."""
    port = pick()
    site = Site(brokers, names, tmp_path)
    try:
        first = site.run(WEB_PORT=str(port))
        site.wait_claimed(first)
        second = site.run(WEB_PORT=str(port))
        site.wait_shared(first, second)
        assert f"127.0.0.1:{port} cannot be listened on" in second.log
        assert "PULSELINE_WEB_PORT" in second.log
        site.send(5)
        site.wait_served()
        assert [stop(each)[0] for each in (first, second)] == [0, 0]
    finally:
        site.end()
