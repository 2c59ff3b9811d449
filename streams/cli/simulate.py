"""`pulseline simulate`: shoppers, live or as history."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from models.outputs import parse_duration
from models.topics import INPUT_TOPICS
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.progress import Waiting
from streams.cli.tail import consumer_of, follow, partitions_of
from streams.errors import PulselineError
from streams.producer.client import EngagementProducer, NotDelivered
from streams.producer.ledger import Ledger
from streams.producer.plan import CALM, HARSH, SHOP, Planned, Script, plan
from streams.producer.simulator import LiveSimulator, Replies, Sender, play_history
from streams.settings import Settings, kafka_options

FOREVER_MS = 10 * 365 * 86_400_000
STORIES = {"shop": SHOP, "calm": CALM, "harsh": HARSH}


def _share(text: str) -> float:
    """Read "1%" or "0.01" as 0.01."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 0.5:
        raise click.BadParameter(f"{text!r} is no share: write 1% or 0.01, less than 50%")
    return share


def _duration(text: str | None, absent_ms: int) -> int:
    try:
        return absent_ms if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=SettingsCommand)
@click.option("--seed", default=1, show_default=True, help="The same seed plays the same shoppers.")
@click.option("--shoppers", default=200, show_default=True, help="How many of them there are.")
@click.option("--rate", default=20.0, show_default=True, help="Records a second, when live.")
@click.option("--duration", help="Live: end after this time. History: the time it covers (1d if absent).")
@click.option("--history", type=int, help="Send so many records of the past at once, with timestamps of their own.")
@click.option("--bulk", is_flag=True, help="History in whole batches, without the SDK's checks: much faster, no log.")
@click.option("--stories", type=click.Choice(list(STORIES)), default="shop", show_default=True, help="What they do.")
@click.option("--dirty", default="0", show_default=True, help="Share of bad records, such as 1%.")
@click.option("--duplicates", default="0", show_default=True, help="Share of events sent twice.")
@click.option("--out-of-order", default="0", show_default=True, help="Share of events sent late, but in time.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Write what Kafka acknowledged, as JSONL.")
@takes_settings
def simulate(
    settings: Settings,
    *,
    seed: int,
    shoppers: int,
    rate: float,
    duration: str | None,
    history: int | None,
    bulk: bool,
    stories: str,
    dirty: str,
    duplicates: str,
    out_of_order: str,
    log: Path | None,
) -> None:
    """Send what simulated shoppers do to all four input topics; live, they click the mails that triggers bring them.

    --history needs topics with CreateTime (PULSELINE_TOPIC_TIMESTAMPS), and workers that were started with
    --punctuation off or afterwards.
    """
    now_ms = time.time_ns() // 1_000_000
    length_ms = _duration(duration, FOREVER_MS if history is None else 86_400_000)
    script = Script(
        seed=seed,
        shoppers=shoppers,
        start_ms=now_ms if history is None else now_ms - length_ms,
        duration_ms=length_ms,
        events=history,
        records_per_s=rate if history is None else None,
        steps=settings.cart_steps,
        lateness_ms=settings.lateness_ms,
        stories=STORIES[stories],
        dirty=_share(dirty),
        duplicates=_share(duplicates),
        out_of_order=_share(out_of_order),
    )
    with consumer_of(settings) as consumer:
        partitions_of(consumer, settings, INPUT_TOPICS)
    if bulk:
        if history is None:
            raise click.UsageError("--bulk goes with --history")
        click.echo(f"{_bulk(settings, plan(script), history)} records sent and acknowledged")
        return
    producer = EngagementProducer(
        settings.kafka_bootstrap,
        topic_prefix=settings.topic_prefix,
        block_ms_max=min(10_000, settings.request_timeout_ms),
        **kafka_options(settings),
    )
    with Ledger(log) as ledger:
        sender = Sender(producer, ledger, timestamps=history is not None)
        try:
            if history is None:
                _live(settings, plan(script), sender, length_ms)
            else:
                _history(plan(script), sender, history)
        except KeyboardInterrupt:
            click.echo("stopping", err=True)
        finally:
            lost = _close(producer)
    counted = ", ".join(f"{number} {label}" for label, number in ledger.counts.most_common())
    click.echo(f"{ledger.records} records sent and acknowledged ({counted})")
    if lost is not None:
        raise lost


def _close(producer: EngagementProducer) -> NotDelivered | None:
    try:
        producer.close()
    except NotDelivered as error:
        return error
    return None


def _history(records: Iterator[Planned], sender: Sender, events: int) -> None:
    with Waiting("sending history") as waiting:
        play_history(records, sender, lambda sent: waiting.tick(f"{sent:,} of {events:,} records"))


def _bulk(settings: Settings, records: Iterator[Planned], events: int) -> int:
    from streams.cli.bulk import load_history

    with Waiting("sending history") as waiting:
        return load_history(
            settings.kafka_bootstrap,
            settings.topic_prefix,
            records,
            partitions=settings.partitions,
            progress=lambda sent: waiting.tick(f"{sent:,} of {events:,} records"),
            **kafka_options(settings),
        )


def _live(settings: Settings, records: Iterator[Planned], sender: Sender, length_ms: int) -> None:
    simulator = LiveSimulator(records, sender, replies=Replies(seed=1))
    listener = threading.Thread(target=listen, args=(settings, simulator), name="triggers", daemon=True)
    timer = threading.Timer(length_ms / 1_000, simulator.stop) if length_ms < FOREVER_MS else None
    listener.start()
    if timer is not None:
        timer.start()
    try:
        simulator.run()
    finally:
        simulator.stop()
        if timer is not None:
            timer.cancel()
        listener.join(5)


def listen(settings: Settings, simulator: LiveSimulator) -> None:
    """Let the shoppers hear of triggers until the simulator is stopped."""
    try:
        follow(
            settings,
            lambda _suffix, record: simulator.answer(json.loads(record.value)),
            simulator.stopping,
            suffixes=("triggers.v1",),
        )
    except PulselineError as error:
        click.echo(f"Warning: the shoppers do not hear of triggers any more: {error}", err=True)
