"""What runs beside the screen of a demo: the simulated shoppers, and a look at the workers' group."""

import threading
import time
from typing import Any

import click

from streams.cli.topics import admin_of
from streams.errors import PulselineError
from streams.producer.client import EngagementProducer
from streams.producer.ledger import Ledger
from streams.producer.plan import SHOP, Script, plan
from streams.producer.simulator import LiveSimulator, Replies, Sender
from streams.settings import Settings, kafka_options

FIRST_CARTS = ("abandon", "abandon", "abandon", "buy", "resume", "return_unasked", "take_over")
OPENING = (*FIRST_CARTS, "browse", "newsletter", "social")
SHOPPERS = 150


class Group(threading.Thread):
    """Watches the consumer group: how many workers own tasks, now and at most."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="group", daemon=True)
        self.workers = self.most = 0
        self._settings = settings
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            with admin_of(self._settings) as admin:
                while not self._stopping.wait(1):
                    members = admin.describe_groups([self._settings.app_id])[self._settings.app_id]["members"]
                    self.workers = sum(bool(_owned(member)) for member in members)
                    self.most = max(self.most, self.workers)
        except PulselineError as error:
            click.echo(f"Warning: the workers' group cannot be watched any more: {error}", err=True)

    def stop(self) -> None:
        self._stopping.set()
        self.join(5)


def _owned(member: dict[str, Any]) -> list[Any]:
    assignment = member.get("member_assignment")
    return assignment["assigned_partitions"] if isinstance(assignment, dict) else []


class Shop(threading.Thread):
    """The simulated shoppers; what ended them, if it was an error, is in `error`."""

    def __init__(self, settings: Settings, ledger: Ledger, *, seed: int, rate: float) -> None:
        super().__init__(name="shop", daemon=True)
        self.error: Exception | None = None
        self.first_event_s: float | None = None
        self._producer = EngagementProducer(
            settings.kafka_bootstrap, topic_prefix=settings.topic_prefix, **kafka_options(settings)
        )
        script = Script(
            seed=seed,
            shoppers=SHOPPERS,
            start_ms=time.time_ns() // 1_000_000,
            duration_ms=7 * 86_400_000,
            records_per_s=rate,
            steps=settings.cart_steps,
            lateness_ms=settings.lateness_ms,
            stories=SHOP,
            opening=OPENING,
            dirty=0.01,
            duplicates=0.01,
            out_of_order=0.03,
        )
        sender = Sender(self._producer, ledger)
        self.simulator = LiveSimulator(plan(script), sender, replies=Replies(seed=seed))

    def run(self) -> None:
        self.first_event_s = time.monotonic()
        try:
            self.simulator.run()
            self._producer.close()
        except Exception as error:  # noqa: BLE001 - shown by the main thread
            self.error = error

    def stop(self) -> None:
        """Stop the shoppers and wait until Kafka has all that they sent."""
        self.simulator.stop()
        self.join(60)
        if self.error is not None:
            raise self.error
