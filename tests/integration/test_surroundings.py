"""Bad surroundings: what is missing, wrong or away is told clearly, waited for where that helps, and costs nothing."""

import gc
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka.admin import KafkaAdminClient, NewPartitions

from tests.support.brokers import Brokers, Names, Server, run_brokers
from tests.support.site import Program, Site, stop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python leaves the sockets of failed connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAUST_WORKER = ("faust", "-A", "streams.worker", "worker")
STOP_S = 10


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def breakable() -> Iterator[Brokers]:
    """Brokers that the tests of this module may break, if they mend them again."""
    with run_brokers() as running:
        yield running


@pytest.fixture
def site(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Site]:
    running = Site(brokers, names, tmp_path)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def own_site(breakable: Brokers, names: Names, tmp_path: Path) -> Iterator[Site]:
    running = Site(breakable, names, tmp_path)
    try:
        yield running
    finally:
        running.end()


def said(program: Program, what: str) -> int:
    """How many lines of its log say so."""
    return len([line for line in program.log.splitlines() if what in line])


def assert_stopped_saying(program: Program, code: int, *words: str) -> None:
    """It ended by itself with this exit code, saying all of this, and without a traceback."""
    assert program.ended(60) == code, program.log[-3_000:]
    for word in words:
        assert word in program.log
    assert "Traceback" not in program.log


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize("command", [("pulseline", "worker"), FAUST_WORKER, ("python", "-m", "streams.worker")])
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("COMIT_INTERVAL", "1s", ["PULSELINE_COMIT_INTERVAL", "PULSELINE_COMMIT_INTERVAL"]),
        ("LATENESS", "soon", ["PULSELINE_LATENESS", "a duration such as"]),
    ],
)
def test_a_setting_that_is_unknown_or_malformed_stops_the_start(
    names: Names, tmp_path: Path, command: tuple[str, ...], name: str, text: str, words: list[str]
) -> None:
    """Exit code 2 and the setting's name, however the worker is started; no broker is asked for anything."""
    refused = Program(0, command, Site.bare_environ(tmp_path) | {f"PULSELINE_{name}": text}, tmp_path)
    assert_stopped_saying(refused, 2, *words)


# ---------------------------------------------------------------------- topics


def test_missing_topics_are_told_with_what_creates_them(brokers: Brokers, names: Names, tmp_path: Path) -> None:
    """The worker stops and says so; after doing what it said it serves."""
    site = Site(brokers, names, tmp_path, topics=False)
    try:
        assert_stopped_saying(site.run(), 1, "TopicProblem", "does not exist: run `pulseline topics apply`")
        applied = site.call("pulseline", "topics", "apply")
        assert applied.process.returncode == 0
        worker = site.run()
        site.send(5)
        site.wait_served()
        assert stop(worker)[0] == 0
    finally:
        site.end()


def test_one_missing_topic_is_named(site: Site) -> None:
    """Also where it is an output: a worker without it would fail at the first record that needs it."""
    missing = site.names.topic("rejected.v1")
    with_admin(site, lambda admin: admin.delete_topics([missing]))
    site.wait("the topic is gone", lambda: missing not in with_admin(site, lambda admin: admin.list_topics()))
    assert_stopped_saying(site.run(), 1, f"topic {missing} does not exist: run `pulseline topics apply`")
    checked = site.call("pulseline", "topics", "check")
    assert (checked.process.returncode, f"{missing}: missing" in checked.log) == (1, True)


def test_another_number_of_partitions_is_refused(site: Site) -> None:
    """Of all topics, where the setting is wrong; of one, where somebody enlarged it."""
    wrong = site.run(PARTITIONS="3")
    assert_stopped_saying(wrong, 1, "has 2 partitions, not 3: run `pulseline topics apply`, or correct PARTITIONS")
    wide = site.names.topic("social.v1")
    with_admin(site, lambda admin: admin.create_partitions({wide: NewPartitions(3)}))
    site.wait(
        "the partition is there",
        lambda: len(with_admin(site, lambda admin: admin.describe_topics([wide]))[0]["partitions"]) == 3,
    )
    assert_stopped_saying(site.run(), 1, f"topic {wide} has 3 partitions, not 2: run `pulseline topics apply`")
    applied = site.call("pulseline", "topics", "apply")
    assert (applied.process.returncode, "PULSELINE_PARTITIONS" in applied.log) == (1, True)


def with_admin(site: Site, act: Callable[[KafkaAdminClient], Any]) -> Any:
    admin = KafkaAdminClient(bootstrap_servers=site.brokers.bootstrap)
    try:
        return act(admin)
    finally:
        admin.close()


def test_empty_topics_are_no_trouble(site: Site) -> None:
    """A worker starts, waits, stops and starts again on topics without a record; the first event is served."""
    first = site.run()
    site.wait_claimed(first)
    site.wait("the start is committed", lambda: len(site.committed()) == site.settings.partitions)
    code, seconds = stop(first)
    assert (code, seconds < STOP_S) == (0, True)
    second = site.run()
    site.wait_claimed(second)
    site.send(4)
    site.wait_served()
    assert stop(second)[0] == 0
    assert [said(program, " WARNING ") + said(program, " ERROR ") for program in (first, second)] == [0, 0]


# ---------------------------------------------------------------------- the table


def test_the_customers_table_is_read_by_the_users_own_agents_and_tasks(site: Site) -> None:
    """`customers[id]` is the profile in any agent or task of the app; a write is refused, with what to do instead."""
    ask = ["c-0", "c-1", "c-2"]
    worker = site.run("faust", "-A", "tests.support.asking_worker", "worker", ask=",".join(ask))
    site.send(3)
    site.wait("all are asked about", lambda: said(worker, '"asker"') == 2 * len(ask))
    site.wait_served()
    assert stop(worker)[0] == 0
    answers = [json.loads(line[line.index("{") :]) for line in worker.log.splitlines() if '{"asker"' in line]
    assert {(told["asker"], told["view"]["customer_id"]) for told in answers} == {
        (asker, customer) for asker in ("agent", "task") for customer in ask
    }
    for told in answers:
        assert (told["view"]["rev"], told["view"]["counters"]["page_viewed"]["1h"]) == (1, 1)
        assert "read-only" in told["write"]
        assert "send an event" in told["write"]
    assert {view["score"] for view in site.read_customers().values()} == {told["view"]["score"] for told in answers}


# ---------------------------------------------------------------------- stopping


class Flow(threading.Thread):
    """Events that keep coming, one customer after the other, until it is ended."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="flow", daemon=True)
        self.site, self.sent, self.ending = site, 0, threading.Event()
        self.failure: BaseException | None = None
        self.producer = site.producer(delivery_timeout_ms=180_000, block_ms_max=180_000)

    def run(self) -> None:
        try:
            while not self.ending.wait(0.01):
                self.producer.send(type="page_viewed", customer_id=f"c-{self.sent % 50}")
                self.sent += 1
        except BaseException as failure:  # noqa: BLE001 - raised again by `end`
            self.failure = failure

    def end(self) -> None:
        """Stop sending; Kafka has it all when this returns."""
        self.ending.set()
        self.join(60)
        if self.failure is not None:
            raise self.failure
        assert self.producer.flush(60) == []
        self.producer.close()
        self.site.sent += self.sent


@pytest.fixture
def flow(own_site: Site) -> Iterator[Flow]:
    running = Flow(own_site)
    running.start()
    try:
        yield running
    finally:
        running.ending.set()
        running.join(60)


def check_counted_once(site: Site, flow: Flow) -> None:
    """Every event that was sent is in state once."""
    site.wait_served(90)
    revs = {customer: profile["rev"] for customer, profile in site.read_customers().items()}
    assert revs == {f"c-{number}": len(range(number, flow.sent, 50)) for number in range(min(50, flow.sent))}
    assert site.account()["duplicate"] == 0


def test_sigterm_commits_all_that_was_read_and_leaves_the_group(own_site: Site, flow: Flow) -> None:
    """While events flow: state and offsets agree, the group is empty at once, and the next worker begins there."""
    worker = own_site.run(COMMIT_INTERVAL="10s")  # so that the stop's own commit is what counts
    own_site.wait_claimed(worker)
    begun = flow.sent
    own_site.wait("events flow", lambda: flow.sent > begun + 200)
    code, seconds = stop(worker)
    assert (code, seconds < STOP_S) == (0, True)
    assert own_site.members() == 0
    read = own_site.account().total()
    assert begun + 200 <= read <= flow.sent + own_site.account()["control"]
    positions = {task: sum(topic.position for topic in book.topics.values()) for task, book in own_site.books().items()}
    assert positions == own_site.committed()
    flow.end()
    again = own_site.run()
    check_counted_once(own_site, flow)
    assert stop(again)[0] == 0


# ---------------------------------------------------------------------- brokers that are away


def test_redis_and_kafka_may_die_and_come_back_while_events_flow(own_site: Site, flow: Flow) -> None:
    """kill -9 of either: the worker stays, says what is away a few times, and counts every event once afterwards."""
    worker = own_site.run(REQUEST_TIMEOUT="5s")
    own_site.wait("the first events are applied", lambda: own_site.account()["applied"] > 100)
    for server in (own_site.brokers.redis, own_site.brokers.kafka):
        check_survives(own_site, worker, flow, server)
    flow.end()
    check_counted_once(own_site, flow)
    code, seconds = stop(worker)
    assert (code, seconds < STOP_S) == (0, True)
    assert said(worker, "Traceback") == 0


def check_survives(site: Site, worker: Program, flow: Flow, server: Server) -> None:
    """The worker tells that the server is gone, and goes on when it is back; what it tells meanwhile is bounded."""
    before, begun = len(worker.log.splitlines()), time.monotonic()
    server.kill()
    site.wait("the worker notices", lambda: len(worker.log.splitlines()) > before + 1)
    server.start()
    went_on = site.account()["applied"] + 300
    site.wait("events are applied again", lambda: site.account()["applied"] > went_on, 90)
    assert worker.running
    assert len(worker.log.splitlines()) - before < 30 + 3 * (time.monotonic() - begun), worker.log[-4_000:]


def test_a_full_redis_stops_commits_and_loses_nothing(own_site: Site, flow: Flow) -> None:
    """Where noeviction refuses to write, the worker says why and waits; with room again it goes on."""
    worker = own_site.run()
    own_site.wait("the first events are applied", lambda: own_site.account()["applied"] > 20)
    with redis.Redis.from_url(own_site.brokers.redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            own_site.wait("the worker says why", lambda: said(worker, "OutOfMemory") > 0)
        finally:
            client.config_set("maxmemory", 0)
    flow.end()
    check_counted_once(own_site, flow)
    assert stop(worker)[0] == 0


@pytest.mark.parametrize("away", ["kafka", "redis"])
def test_what_is_absent_at_the_start_is_waited_for(own_site: Site, away: str) -> None:
    """It is told where it was looked for, not too often; SIGTERM ends the waiting; when it comes all is well."""
    server = getattr(own_site.brokers, away)
    with own_site.producer() as producer:
        own_site.send(20, producer)
    server.kill()
    try:
        impatient, patient = (own_site.run(REQUEST_TIMEOUT="90s") for _ in range(2))
        where = own_site.brokers.bootstrap if away == "kafka" else own_site.brokers.redis_url.split("/")[2]
        begun = time.monotonic()
        told = re.compile(rf"WARNING .*{away}.*{re.escape(where)}.*", re.IGNORECASE)
        own_site.wait("both tell", lambda: all(len(told.findall(each.log)) > 1 for each in (impatient, patient)))
        assert len(patient.log.splitlines()) < 10 + 2 * (time.monotonic() - begun)
        code, seconds = stop(impatient)
        assert (code, seconds < STOP_S) == (0, True), impatient.log[-2_000:]
        assert patient.running
    finally:
        server.start()
    own_site.wait_served(90)
    assert stop(patient)[0] == 0
    assert said(patient, "Traceback") + said(impatient, "Traceback") == 0


@pytest.mark.parametrize("away", ["kafka", "redis"])
def test_a_worker_whose_broker_died_can_be_stopped(own_site: Site, flow: Flow, away: str) -> None:
    """SIGTERM ends it in time although nothing can be committed; the next worker counts every event once."""
    server = getattr(own_site.brokers, away)
    worker = own_site.run()
    own_site.wait("the first events are applied", lambda: own_site.account()["applied"] > 20)
    server.kill()
    try:
        own_site.wait("the worker notices", lambda: said(worker, " WARNING ") + said(worker, " ERROR ") > 1)
        _, seconds = stop(worker)
        assert seconds < STOP_S
    finally:
        server.start()
    flow.end()
    again = own_site.run()
    check_counted_once(own_site, flow)
    assert stop(again)[0] == 0


# ---------------------------------------------------------------------- Redis that does not let us in


@pytest.mark.parametrize("password", ["", ":wrong-Zebra7@"])
def test_a_wrong_password_of_redis_is_told(own_site: Site, password: str) -> None:
    """None and a wrong one: the worker stops at once, with the setting to correct and without the password."""
    url = own_site.brokers.redis_url
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "right")
        try:
            worker = own_site.run(REDIS_URL=url.replace("://", f"://{password}"))
            assert_stopped_saying(worker, 2, "does not accept the user and password of PULSELINE_REDIS_URL")
            assert "Zebra7" not in worker.log
        finally:
            client.config_set("requirepass", "")


@pytest.mark.parametrize("command", [FAUST_WORKER, ("faust", "-q", *FAUST_WORKER[1:])], ids=" ".join)
def test_the_right_password_of_redis_is_shown_nowhere(own_site: Site, command: tuple[str, ...]) -> None:
    """Neither in the log, at DEBUG, nor in Faust's banner; without the banner a JSON log is JSON alone."""
    url = own_site.brokers.redis_url
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "Zebra7")
        try:
            own_url = url.replace("://", "://:Zebra7@")
            worker = own_site.run(*command, REDIS_URL=own_url, LOG_LEVEL="DEBUG", LOG_FORMAT="json")
            own_site.wait_claimed(worker)
            assert stop(worker)[0] == 0
        finally:
            client.config_set("requirepass", "")
    assert "Zebra7" not in worker.log
    if command != FAUST_WORKER:
        assert all(json.loads(line)["message"] for line in worker.log.splitlines())
