"""What the transport needs to know of the application it serves."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.processing.processor import Processor


@dataclass(slots=True)
class Wiring:
    """Set as `app.wiring` by the composition root before the app starts; times in ms.

    bootstrap: where Kafka is, for messages. inputs: names of the input topics; topics: partition count that each input
    and output topic must have. prepare: checks before the first claim, retried for a while where it raises Retriable.
    fatal: stop the worker with this error; called from any task of the loop, the first call counts.
    """

    processor: "Processor"
    bootstrap: str
    inputs: tuple[str, ...]
    topics: Mapping[str, int]
    prepare: Callable[[], Awaitable[None]]
    fatal: Callable[[Exception], None]
    run_records_max: int = 2_000
    fast_fetch: bool = True
    session_timeout_ms: int = 10_000
    max_poll_interval_ms: int = 300_000
    request_timeout_ms: int = 30_000
    shutdown_timeout_ms: int = 8_000

    @property
    def revoke_deadline_ms(self) -> int:
        """How long the last commit may take when partitions are revoked."""
        return self.max_poll_interval_ms // 5

    @property
    def stop_deadline_ms(self) -> int:
        """How long the last commit may take when the worker stops; the rest is for leaving the group."""
        return self.shutdown_timeout_ms * 6 // 10

    @property
    def close_deadline_ms(self) -> int:
        """How long each of the clients of Kafka, consumer and producer, may take to close."""
        return self.shutdown_timeout_ms * 3 // 20
