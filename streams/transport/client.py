"""The aiokafka consumer under Faust's: how it is set up, and how its rebalances reach Faust."""

from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from streams.transport.wiring import Wiring

FETCH_WAIT_MS = 100
"""aiokafka has one fetch in flight a broker: a silent partition's long poll delays all others by this much at most."""


class RebalanceListener(ConsumerRebalanceListener):
    """Passes aiokafka's rebalance callbacks on to Faust, in the same event loop."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._consumer.app.on_rebalance_start()
        await self._consumer.on_partitions_revoked(ensure_TPset(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        generation = self._consumer.kafka._coordinator.generation
        self._consumer.app.consumer_generation_id = generation
        await self._consumer.on_partitions_assigned(ensure_TPset(assigned), generation)


def group_consumer(app: Any) -> AIOKafkaConsumer:
    """Return a consumer of the app's group that commits nothing, resets nothing and reads committed records only."""
    conf, transport = app.conf, app.transport
    wiring: Wiring = app.wiring
    return AIOKafkaConsumer(
        client_id=conf.broker_client_id,
        group_id=conf.id,
        bootstrap_servers=server_list(transport.url, transport.default_port),
        partition_assignment_strategy=[app.assignor],
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_poll_records=wiring.run_records_max,
        max_poll_interval_ms=wiring.max_poll_interval_ms,
        rebalance_timeout_ms=wiring.max_poll_interval_ms,
        session_timeout_ms=wiring.session_timeout_ms,
        heartbeat_interval_ms=min(3_000, wiring.session_timeout_ms // 3),
        request_timeout_ms=wiring.request_timeout_ms,
        max_partition_fetch_bytes=conf.consumer_max_fetch_size,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        check_crcs=conf.broker_check_crcs,
        isolation_level="read_committed",
        metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
        connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
        **credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
    )
