"""The customers table reads from Redis whom no task holds in memory."""

from typing import Any

import faust
import pytest

from streams.engagement.profile import Profile
from streams.engagement.scoring import ScoreModel
from streams.processing.ports import Commit
from streams.stores.keys import partition_of
from streams.stores.redis import RedisStore
from streams.stores.table import Table

pytestmark = pytest.mark.integration
PARTITIONS = 16


def packed(customer_id: str, rev: int) -> bytes:
    profile = Profile(customer_id)
    profile.rev = rev
    return profile.pack_hot()


async def test_committed_customers_are_found_in_whatever_task_they_lie(redis_url: str, names: Any) -> None:
    """What a commit wrote is read by customer id alone; who was never seen is a KeyError; memory wins over Redis."""
    store = RedisStore(redis_url, names.app_id)
    customers = {f"c-{number}": number + 1 for number in range(40)} | {"Zoë": 99}
    for partition in range(PARTITIONS):
        hot = {
            name: packed(name, rev) for name, rev in customers.items() if partition_of(name, PARTITIONS) == partition
        }
        await store.commit(Commit(partition, None, "v1", b"", hot=hot))
    await store.close()

    app = faust.App(names.app_id, autodiscover=False, Table=Table, topic_partitions=PARTITIONS)
    table: Any = app.Table("customers", store=redis_url)
    assert {name: table[name]["rev"] for name in customers} == customers
    assert table["Zoë"] == Profile.unpack("Zoë", packed("Zoë", 99), None).view(ScoreModel.default())
    assert "c-1" in table
    assert "nobody" not in table
    assert table.get("nobody") is None
    with pytest.raises(KeyError):
        table["nobody"]
    assert len(table) == 0

    held = Profile("c-1")
    held.rev = 7
    table.attach(profile={"c-1": held}.get, customers=lambda: ["c-1"], model=ScoreModel.default())
    assert (table["c-1"]["rev"], table["c-2"]["rev"], list(table)) == (7, 3, ["c-1"])
    await table.data.on_stop()
