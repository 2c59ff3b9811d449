"""The SDK that a shop's backend sends its events with: checked before they leave, rightly keyed, never lost in silence.

with EngagementProducer("127.0.0.1:9092") as producer:
    producer.send(type="product_added", customer_id="c-1", product_id="mug", unit_price_minor=1290, currency="EUR")

InvalidEvent     an event breaks the contract; nothing was sent
NotDelivered     the producer was closed while events were still not acknowledged; it carries them
LogUnavailable   Kafka does not answer; the event of this call was not taken
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.codec import has_lz4
from kafka.errors import KafkaConfigurationError, KafkaError

from models.events import EventFields
from models.topics import DEFAULT_TOPIC_PREFIX, topic_name
from streams.errors import LogUnavailable, PulselineError
from streams.producer.encoding import InvalidEvent, checked, encode

Headers = Sequence[tuple[str, bytes]]
Acknowledged = Callable[[int, int, int], None]
"""Called with (partition, offset, timestamp in ms) of a record that Kafka has, from another thread."""

REQUEST_BYTES_MAX = 1_048_576
BATCH_BYTES_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A record that Kafka has not acknowledged, and why; `send_raw(topic, key, value)` sends it again."""

    topic: str
    reason: str
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)


class NotDelivered(PulselineError):
    """Closed while records were not acknowledged; `undelivered` holds them."""

    def __init__(self, undelivered: list[Undelivered]) -> None:
        reasons = ", ".join(sorted({record.reason for record in undelivered}))
        super().__init__(f"{len(undelivered)} events were not delivered: {reasons}")
        self.undelivered = undelivered


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class EngagementProducer:
    """Sends events to the topic of their type, keyed by customer id; idempotent, acks=all, thread-safe.

    delivery_timeout_ms: how long Kafka's client tries before an event counts as not delivered; block_ms_max: how long
    `send` waits for Kafka or for room; pending_max: events sent and not yet acknowledged, more make `send` wait.
    Other keyword arguments go to kafka-python's KafkaProducer (security settings).
    """

    def __init__(
        self,
        bootstrap: str = "127.0.0.1:9092",
        *,
        topic_prefix: str = DEFAULT_TOPIC_PREFIX,
        delivery_timeout_ms: int = 120_000,
        block_ms_max: int = 10_000,
        pending_max: int = 50_000,
        linger_ms: int = 5,
        **kafka_options: Any,
    ) -> None:
        self.topic_prefix = topic_prefix
        self._block_ms_max = block_ms_max
        self._pending_max = pending_max
        self._changed = threading.Condition()
        self._pending: dict[int, tuple[str, bytes | None, bytes | None]] = {}
        self._failed: list[Undelivered] = []
        self._sent = 0
        self.delivered = 0
        """Records acknowledged by Kafka."""
        try:
            self._kafka = KafkaProducer(
                **{
                    "bootstrap_servers": bootstrap.split(","),
                    "acks": "all",
                    "enable_idempotence": True,
                    "compression_type": "lz4" if has_lz4() else None,
                    "linger_ms": linger_ms,
                    "batch_size": BATCH_BYTES_MAX,
                    "max_request_size": REQUEST_BYTES_MAX,
                    "max_block_ms": block_ms_max,
                    "bootstrap_timeout_ms": block_ms_max,
                    "request_timeout_ms": max(1, min(30_000, delivery_timeout_ms - linger_ms - 1)),
                    "delivery_timeout_ms": delivery_timeout_ms,
                    "reconnect_backoff_max_ms": 1_000,
                    "allow_auto_create_topics": False,
                    "metrics_enabled": False,
                }
                | kafka_options
            )
        except KafkaConfigurationError:
            raise
        except KafkaError as error:
            # kafka-python tells no more, whatever is wrong.
            raise LogUnavailable(
                f"Kafka does not answer, or does not let us in, at {bootstrap} ({type(error).__name__}): "
                "`pulseline topics check` with the same settings tells why"
            ) from error

    def send(
        self,
        event: EventFields | Mapping[str, Any] | None = None,
        /,
        *,
        timestamp_ms: int | None = None,
        acknowledged: Acknowledged | None = None,
        **fields: Any,
    ) -> str:
        """Check one event and hand it to Kafka's client; return its event_id.

        `event` is a class of models.events, a mapping, or given by `fields`. Absent, `event_id` is a random one and
        `occurred_at_ms` is now. timestamp_ms is the record's own time, where the topic keeps CreateTime.
        `acknowledged` is called with (partition, offset, timestamp_ms) once Kafka has it, from another thread.
        """
        if not isinstance(event, EventFields):
            event = checked({"event_id": str(uuid.uuid4()), "occurred_at_ms": _now_ms()} | dict(event or {}) | fields)
        elif fields:
            raise InvalidEvent(f"{event.type}: a whole event takes no further fields")
        suffix, key, value = encode(event)
        topic = topic_name(self.topic_prefix, suffix)
        self.send_raw(topic, key, value, timestamp_ms=timestamp_ms, acknowledged=acknowledged)
        return event.event_id

    def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        acknowledged: Acknowledged | None = None,
    ) -> None:
        """Hand a record over as it is, UNCHECKED: for records not delivered before, and for tests of bad input.

        Raises InvalidEvent for a record beyond REQUEST_BYTES_MAX, LogUnavailable where Kafka takes nothing for
        `block_ms_max`. `acknowledged` is as in `send`.
        """
        number = self._take(topic, key, value)
        try:
            sent = self._kafka.send(topic, value=value, key=key, headers=list(headers), timestamp_ms=timestamp_ms)
        except KafkaError as error:
            self._settle(number)
            if type(error).__name__ == "MessageSizeTooLargeError":
                raise InvalidEvent(f"a record for {topic} is larger than {REQUEST_BYTES_MAX} bytes") from None
            raise LogUnavailable(f"no record could be handed over for {topic}: {type(error).__name__}") from error
        except BaseException:
            self._settle(number)
            raise
        sent.add_callback(self._acknowledge, number, acknowledged)
        sent.add_errback(self._fail, number)

    def flush(self, timeout_s: float = 30.0) -> list[Undelivered]:
        """Wait until everything sent before is settled; return what is not delivered, with the reason.

        A failed record is reported once. One without an answer after `timeout_s` is reported too, and stays on its way.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            last = self._sent
        self._push(timeout_s)
        with self._changed:
            # Numbers grow and dicts keep their order: the first pending one is the oldest.
            self._changed.wait_for(
                lambda: next(iter(self._pending), last + 1) > last, max(0.0, deadline - time.monotonic())
            )
            failed, self._failed = self._failed, []
            unanswered = [record for number, record in self._pending.items() if number <= last]
        reason = f"no answer within {timeout_s:g} s"
        return failed + [Undelivered(topic, reason, key, value) for topic, key, value in unanswered]

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush and let go of Kafka; NotDelivered where something was not acknowledged, then given up."""
        undelivered = self.flush(timeout_s)
        if undelivered:
            # KafkaProducer.close() would wait once more for what does not come.
            self._kafka._sender.force_close()  # noqa: SLF001
        with contextlib.suppress(KafkaError):
            self._kafka.close(timeout=timeout_s)
        if undelivered:
            raise NotDelivered(undelivered)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except NotDelivered as loss:
            if error is None:
                raise
            error.add_note(str(loss))

    def _push(self, timeout_s: float) -> None:
        try:
            self._kafka.flush(timeout=timeout_s)
        except KafkaError:
            return  # what is still pending is reported by the caller

    def _take(self, topic: str, key: bytes | None, value: bytes | None) -> int:
        with self._changed:
            room = self._changed.wait_for(lambda: len(self._pending) < self._pending_max, self._block_ms_max / 1_000)
            if not room:
                raise LogUnavailable(f"{self._pending_max} records wait for Kafka's answer")
            self._sent += 1
            self._pending[self._sent] = (topic, key, value)
            return self._sent

    def _settle(self, number: int) -> tuple[str, bytes | None, bytes | None]:
        with self._changed:
            record = self._pending.pop(number)
            self._changed.notify_all()
            return record

    def _acknowledge(self, number: int, acknowledged: Acknowledged | None, metadata: Any) -> None:
        with self._changed:
            self.delivered += 1
        self._settle(number)
        if acknowledged is not None:
            acknowledged(metadata.partition, metadata.offset, metadata.timestamp)

    def _fail(self, number: int, error: BaseException) -> None:
        with self._changed:
            topic, key, value = self._settle(number)
            self._failed.append(Undelivered(topic, type(error).__name__, key, value))
