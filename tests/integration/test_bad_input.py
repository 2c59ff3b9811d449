"""Bad records to real workers: each is rejected whole with its reason, and disturbs nothing; no log tells of it.

Two workers with a bug of their own share the tasks, one writing JSON lines and one for people, both at level DEBUG;
every bad record is sent to both tasks, between good ones.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.structs import TopicPartition

from models.outputs import RejectedHeaders
from models.topics import INPUT_TOPICS
from streams.cli.tail import consumer_of
from streams.producer.encoding import InvalidEvent
from streams.stores.keys import partition_of
from tests.support.bad_input import BAD, GOOD, MARK, PRICE, Bad, encoded
from tests.support.brokers import Brokers, Names
from tests.support.site import Site, stop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BUGGY = ("python", "-m", "tests.support.buggy_worker")
TASKS = 2
DAY_MS = 86_400_000
HUGE = (MARK * 450_000).encode()
"""5 MB that any batch compresses to a few KB: no broker refuses it."""


def customers(kind: str, count: int) -> dict[int, list[str]]:
    """`count` customer ids for each task."""
    found: dict[int, list[str]] = {task: [] for task in range(TASKS)}
    number = 0
    while any(len(ids) < count for ids in found.values()):
        customer = f"{kind}-{MARK}-{number}"
        ids = found[partition_of(customer, TASKS)]
        if len(ids) < count:
            ids.append(customer)
        number += 1
    return found


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it was sent."""

    topic: str
    task: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Case:
    """Everything that was sent, and what came of it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.bad: dict[str, list[Sent]] = {}
        self.good: Counter[tuple[str, int]] = Counter()
        self.revs: Counter[str] = Counter()
        self.times: set[int] = set()
        self.refused: list[Any] = []
        self.begun_ms = int(time.time() * 1_000)
        self.bugs = customers("bug-apply", 2)
        self.fine = customers("fine", 3)
        self.rejected: dict[str, list[Any]] = {}
        self.logs: dict[str, str] = {}

    def send_all(self) -> None:
        producer, compressing, oversized = (
            KafkaProducer(bootstrap_servers=self.site.brokers.bootstrap, max_request_size=8_000_000, **options)
            for options in ({}, {"compression_type": "gzip"}, {})
        )
        try:
            for number, bad in enumerate(BAD):
                for task in range(TASKS):
                    self._send_good(producer, number, task)
                    self._send_bad(producer, bad, task)
            for task in range(TASKS):
                self._send_bad(compressing, Bad("5 MB in a small batch", "TooLarge", lambda _: HUGE), task)
                for customer in self.bugs[task]:
                    self._send_bug(producer, customer, task)
                    self._send_good(producer, 0, task)
                topic, value = self.site.names.topic("cart.v1"), b"\x93" * 2_000_000
                self.refused.append(oversized.send(topic, value, partition=task))
                self._send_good(producer, 1, task)
        finally:
            for each in (producer, compressing, oversized):
                each.close()
        self._send_from_tomorrow()

    def _send_good(self, producer: KafkaProducer, number: int, task: int) -> None:
        topic = INPUT_TOPICS[number % len(INPUT_TOPICS)]
        customer = self.fine[task][number % 3]
        fields = GOOD[topic](int(time.time() * 1_000), customer, event_id=f"{MARK}-{number}-{self.revs[customer]}")
        self.times.add(fields["occurred_at_ms"])
        self.good[topic, task] += 1
        self.revs[customer] += 1
        producer.send(self.site.names.topic(topic), encoded(fields), customer.encode(), partition=task)

    def _send_bad(self, producer: KafkaProducer, bad: Bad, task: int) -> None:
        now_ms = int(time.time() * 1_000)
        self.times.add(now_ms)
        headers = [("case", bad.name.encode()), ("empty", b""), ("case", f"{MARK} again".encode())]
        sent = Sent(bad.topic, task, bad.key, bad.value(now_ms), headers)
        self.bad.setdefault(bad.name, []).append(sent)
        name = self.site.names.topic(bad.topic)
        producer.send(name, sent.value, sent.key, headers, partition=task)

    def _send_bug(self, producer: KafkaProducer, customer: str, task: int) -> None:
        value = encoded(GOOD["clickstream.v1"](int(time.time() * 1_000), customer))
        sent = Sent("clickstream.v1", task, customer.encode(), value, [("case", customer.encode())])
        self.bad.setdefault(customer, []).append(sent)
        producer.send(self.site.names.topic(sent.topic), value, sent.key, sent.headers, partition=task)

    def _send_from_tomorrow(self) -> None:
        """A shop whose clock is a day ahead, through the SDK; the record's own time as well."""
        tomorrow_ms = int(time.time() * 1_000) + DAY_MS
        with self.site.producer() as producer:
            for task in range(TASKS):
                customer = self.fine[task][0]
                fields = GOOD["cart.v1"](tomorrow_ms, customer)
                del fields["unknown_field"]
                producer.send(fields, timestamp_ms=tomorrow_ms)
                sent = Sent("cart.v1", task, customer.encode(), None, [])
                self.bad.setdefault("the SDK of tomorrow", []).append(sent)

    @property
    def count(self) -> int:
        return sum(self.good.values()) + sum(map(len, self.bad.values()))

    def accounted(self) -> bool:
        account = self.site.account()
        return account.total() - account["control"] >= self.count

    def read_rejected(self) -> None:
        """The claim after a bug may publish its task's last commit again: the same record, told by where it was."""
        first: dict[tuple[str, int, int], Any] = {}
        for record in self.site.outputs("rejected.v1"):
            why = RejectedHeaders.read_from(record.headers)
            same = first.setdefault((why.topic, why.partition, why.offset), record)
            if same is not record:
                assert (record.partition, record.key, record.value, record.headers) == (
                    same.partition,
                    same.key,
                    same.value,
                    same.headers,
                )
                continue
            name = dict(reversed(record.headers)).get("case", b"the SDK of tomorrow").decode()
            self.rejected.setdefault(name, []).append(record)


@pytest.fixture(scope="module")
def case(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("bad-input")
    site = Site(brokers, Names.fresh(), folder, LOG_LEVEL="DEBUG", CART_STEPS="1h,24h")
    try:
        workers = {form: site.run(*BUGGY, LOG_FORMAT=form) for form in ("json", "console")}
        site.wait_shared(*workers.values())
        case = Case(site)
        case.send_all()
        site.wait("every record is accounted for", case.accounted, 120)
        for worker in workers.values():
            assert stop(worker)[0] == 0, worker.log[-3_000:]
        case.logs = {form: worker.log for form, worker in workers.items()}
        case.read_rejected()
        yield case
    finally:
        site.end()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_record_is_rejected_untouched_with_its_reason(case: Case, bad: Bad) -> None:
    """Key, value and headers are as they were sent; Connect's headers tell where it was and why, not what it held."""
    check_rejected(case, bad.name, bad.reason)


@pytest.mark.parametrize("name", ["5 MB in a small batch", "the SDK of tomorrow"])
def test_what_no_producer_should_send_is_rejected_too(case: Case, name: str) -> None:
    """A batch that was small until it was unpacked; an event from a clock a day ahead, checked and sent by the SDK."""
    check_rejected(case, name, "TooLarge" if "5 MB" in name else "Future")


def check_rejected(case: Case, name: str, reason: str) -> None:
    records = {record.partition: record for record in case.rejected[name]}
    assert len(case.rejected[name]) == len(records) == TASKS
    for sent in case.bad[name]:
        record = records[sent.task]
        why = RejectedHeaders.read_from(record.headers)
        assert why.reason == reason
        assert (why.topic, why.partition) == (case.site.names.topic(sent.topic), sent.task)
        assert record.key == sent.key
        if sent.headers:
            assert record.value == sent.value
            assert list(record.headers[: len(sent.headers)]) == sent.headers
            assert len(record.headers) == len(sent.headers) + 6
        assert MARK not in why.message
        assert str(PRICE) not in why.message


def test_a_record_that_meets_a_bug_of_ours_is_rejected_alone(case: Case) -> None:
    """The worker claims the task again and goes on without it; its neighbours are counted once."""
    for task, names in case.bugs.items():
        for name in names:
            (record,) = case.rejected[name]
            assert (record.partition, RejectedHeaders.read_from(record.headers).reason) == (task, "HandlerError")
            assert record.value == case.bad[name][0].value


def test_every_record_is_accounted_for_once(case: Case) -> None:
    """applied + rejected = sent, in each topic of each task; nothing is a duplicate, nothing is counted twice."""
    bad = Counter((sent.topic, sent.task) for all_sent in case.bad.values() for sent in all_sent)
    for (name, task), how in case.site.read_account().items():
        topic = name.removeprefix(case.site.names.topic_prefix + ".")
        assert (how["applied"], how["rejected"]) == (case.good[topic, task], bad[topic, task]), (topic, task)
        assert (how["duplicate"], how["erased"]) == (0, 0)
    assert sum(map(len, case.rejected.values())) == bad.total()


def test_good_customers_are_counted_as_if_nothing_bad_had_been(case: Case) -> None:
    """Only they have profiles and scores, with every one of their events."""
    profiles = case.site.read_customers()
    assert {customer: profile["rev"] for customer, profile in profiles.items()} == case.revs
    last = {record.key.decode(): json.loads(record.value)["rev"] for record in case.site.outputs("scores.v1")}
    assert last == case.revs


def test_time_stands_where_good_records_put_it(case: Case) -> None:
    """No record of tomorrow moves a watermark, so no cart is abandoned before its time."""
    now_ms = int(time.time() * 1_000)
    watermarks = [topic.watermark_ms for book in case.site.books().values() for topic in book.topics.values()]
    assert len(watermarks) == TASKS * len(INPUT_TOPICS)
    lateness_ms = case.site.settings.lateness_ms
    assert case.begun_ms - lateness_ms <= min(watermarks) <= max(watermarks) <= now_ms
    assert case.site.outputs("triggers.v1") == []


def test_two_megabytes_are_refused_before_they_are_a_record(case: Case) -> None:
    """By the broker as the registry sets it up, and by the SDK, which names the limit."""
    for refused in case.refused:
        assert type(refused.exception).__name__ == "MessageSizeTooLargeError"
    with case.site.producer() as producer, pytest.raises(InvalidEvent, match="1048576"):
        producer.send_raw(case.site.names.topic("cart.v1"), b"c", b"\x93" * 2_000_000)
    with consumer_of(case.site.settings) as consumer:
        tps = [TopicPartition(case.site.names.topic("cart.v1"), task) for task in range(TASKS)]
        assert consumer.end_offsets(tps) == {
            tp: case.site.books()[tp.partition].topics[tp.topic].position for tp in tps
        }


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_field_of_an_event_is_in_any_line_of_a_log(case: Case, form: str) -> None:
    """At level DEBUG, with every kind of bad record and a bug whose error quotes the event."""
    log = case.logs[form]
    assert "DEBUG" in log
    assert "HandlerFailed" in log or "applying a record failed" in log
    assert_nothing_told(log, case.times)


def assert_nothing_told(log: str, times: set[int]) -> None:
    words = (MARK, MARK.upper(), MARK.encode("utf-16-le").decode("latin-1"), str(PRICE), *map(str, times))
    told = [line[:600] for line in log.splitlines() if any(word in line for word in words)]
    assert told == []


def test_a_json_log_is_one_object_a_line(case: Case) -> None:
    """From the first line to the last, whoever wrote it, with the fields that collectors need."""
    lines = [json.loads(line) for line in case.logs["json"].splitlines()]
    assert len(lines) > 20
    for line in lines:
        assert {"time_ms", "level", "logger", "pid", "message"} <= line.keys()
        assert case.begun_ms - 120_000 < line["time_ms"] <= time.time() * 1_000
    assert {"DEBUG", "INFO", "ERROR"} <= {line["level"] for line in lines}
    (bug, *_) = [line for line in lines if "traceback" in line]
    assert "bad_apply" in bug["traceback"]


@pytest.mark.parametrize("where", ["pack", "load"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_bug_outside_the_handler_stops_the_worker_without_a_word_of_the_customer(
    brokers: Brokers, names: Names, tmp_path: Path, form: str, where: str
) -> None:
    """What cannot be rejected stops the worker: exit code 1, where the bug is, and nothing of the event."""
    site = Site(brokers, names, tmp_path, LOG_LEVEL="DEBUG", LOG_FORMAT=form)
    try:
        worker = site.run(*BUGGY)
        with site.producer() as producer:
            producer.send(type="page_viewed", customer_id=f"bug-{where}-{MARK}", url=f"https://{MARK}/")
        assert worker.ended(60) == 1
        assert f"bad_{where if where == 'pack' else 'unpack'}" in worker.log
        assert_nothing_told(worker.log, set())
        if form == "json":
            assert {json.loads(line)["level"] for line in worker.log.splitlines()} >= {"CRITICAL"}
    finally:
        site.end()
