"""The composition root: the only place that chooses implementations."""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, cast

from faust.types import TP

from models.topics import INPUT_TOPICS, TOPICS, topic_name
from streams.agents import register_agents
from streams.processing.clock import SystemClock
from streams.processing.plan import Plan
from streams.processing.processor import Processor
from streams.settings import Settings, redis_options
from streams.stores.redis import RedisStore
from streams.stores.table import Table
from streams.transport.application import App, faust_app
from streams.transport.consumer import Consumer
from streams.transport.log import KafkaLog
from streams.transport.wiring import Wiring
from streams.web.exposition import Exposition
from streams.web.health import HealthServer
from streams.web.readiness import Readiness


def wire(app: App, settings: Settings, processor: Processor, prepare: Callable[[], Awaitable[None]]) -> None:
    """Join a Faust application and a processor: agents, callbacks, limits."""
    inputs = tuple(topic_name(settings.topic_prefix, suffix) for suffix in INPUT_TOPICS)
    app.wiring = Wiring(
        processor=processor,
        bootstrap=settings.kafka_bootstrap,
        inputs=inputs,
        topics={
            topic_name(settings.topic_prefix, suffix): topic.partition_count(settings.partitions)
            for suffix, topic in TOPICS.items()
        },
        prepare=prepare,
        fatal=app.fatal,
        run_records_max=settings.run_records_max,
        fast_fetch=settings.fast_fetch,
        session_timeout_ms=settings.session_timeout_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        request_timeout_ms=settings.request_timeout_ms,
        shutdown_timeout_ms=settings.shutdown_timeout_ms,
    )
    processor.on_fatal = app.fatal
    processor.on_fenced = app.tables.on_fenced
    register_agents(app, processor, inputs)


def create_app(settings: Settings) -> App:
    """Return the application with real Kafka and Redis behind it; connects to nothing before it is started."""
    app = faust_app(settings, Table=Table)
    plan = plan_of(settings)
    redis = redis_options(settings)
    store = RedisStore(settings.redis_url, settings.app_id, timeout_ms=settings.redis_timeout_ms, **redis)
    log = KafkaLog(app, inputs=list(plan.inputs), timeout_ms=settings.request_timeout_ms)
    processor = Processor(store=store, log=log, clock=SystemClock(), plan=plan)
    wire(app, settings, processor, store.check)
    add_customers_table(app, settings, processor)
    app.front = (health_server(app, settings, processor),)
    if settings.failpoint is not None:
        processor.before_step = failpoint(settings.failpoint)
    app.on_before_shutdown.connect(_closing(log, store))
    return app


def health_server(app: App, settings: Settings, processor: Processor) -> HealthServer:
    """Return what answers health checks and serves the counters of this worker."""

    def owned() -> frozenset[int]:
        return app.tables.owned

    def opened() -> frozenset[int]:
        return cast(Consumer, app.consumer).opened

    def end(topic: str, task: int) -> int:
        return cast(Consumer, app.consumer).highwater(TP(topic, task)) if task in opened() else 0

    readiness = Readiness(processor, owned=owned, opened=opened, failed=lambda: app.failure)
    exposition = Exposition(processor, owned=owned, end=end)
    return HealthServer(readiness, exposition, host=settings.web_host, port=settings.web_port)


def add_customers_table(app: App, settings: Settings, processor: Processor) -> None:
    """Register the `customers` table: the profiles of the tasks, readable from any agent, page or task of the app."""
    table: Any = app.Table(
        "customers",
        store=settings.redis_url,
        options={"redis": redis_options(settings)},
        partitions=settings.partitions,
        help="what is known of each customer",
    )
    table.attach(
        profile=processor.profile,
        customers=lambda: [customer for task in processor.tasks.values() for customer in task.profiles],
        model=processor.plan.rules.score_model,
    )


def plan_of(settings: Settings) -> Plan:
    """Return what the tasks need to know of the settings."""
    name = {suffix: topic_name(settings.topic_prefix, suffix) for suffix in TOPICS}
    return Plan(
        app_id=settings.app_id,
        partitions=settings.partitions,
        inputs={name[suffix]: suffix for suffix in INPUT_TOPICS},
        cart_topic=name["cart.v1"],
        clickstream_topic=name["clickstream.v1"],
        scores_topic=name["scores.v1"],
        triggers_topic=name["triggers.v1"],
        outcomes_topic=name["outcomes.v1"],
        metrics_topic=name["metrics.v1"],
        rejected_topic=name["rejected.v1"],
        rules=settings.rules(),
        lateness_ms=settings.lateness_ms,
        commit_interval_ms=settings.commit_interval_ms,
        metrics_interval_ms=settings.metrics_interval_ms,
        trigger_max_staleness_ms=settings.trigger_max_staleness_ms,
        score_min_delta_hundredths=settings.score_min_delta_hundredths,
        punctuation=settings.punctuation,
        exactly_once=settings.processing_guarantee == "exactly_once",
        rebuild=settings.rebuild,
        on_gap=settings.on_gap,
        dirty_customers_max=settings.dirty_customers_max,
        pending_bytes_max=settings.dirty_bytes_max,
        # The setting is a worker's, the plan's is a task's.
        profiles_max=max(1_000, settings.profiles_max * settings.workers // settings.partitions),
    )


def failpoint(text: str) -> Callable[[str, int], Awaitable[None]]:
    """For tests: die by SIGKILL before a step of a commit; "publish" at the first, "publish:20" at the twentieth."""
    step, _, count = text.partition(":")
    left = int(count or 1)

    async def die(name: str, partition: int) -> None:  # noqa: ARG001
        nonlocal left
        left -= name == step
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def _closing(log: KafkaLog, store: RedisStore) -> Callable[..., Awaitable[None]]:
    async def close(*_: Any, **__: Any) -> None:
        await log.close()
        await store.close()

    return close
