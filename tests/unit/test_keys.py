"""Keys in Redis: one slot a task, and no two deployments in one key."""

import pytest

from streams.errors import InvalidSettings
from streams.stores import keys


def all_keys(app_id: str, partition: int) -> list[str]:
    of = keys.TaskKeys(app_id, partition)
    return [of.main, *of.besides_main()]


def test_all_keys_of_a_task_share_one_hash_tag() -> None:
    """Redis hashes what stands between the first pair of braces: the same for every key of a task."""
    tags = {key[key.index("{") + 1 : key.index("}")] for key in all_keys("shop", 7)}
    assert tags == {"shop:7"}
    assert keys.published("shop").startswith("{shop:0}:")


def test_no_two_tasks_or_deployments_share_a_key() -> None:
    """Keys are distinct over tasks 1 and 11, and over names that begin alike."""
    found = [
        key for app_id in ("a", "a.1", "a-1", "a1") for partition in (1, 11) for key in all_keys(app_id, partition)
    ]
    found += [make(app_id) for app_id in ("a", "a.1") for make in (keys.deployment, keys.published)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("app_id", ["shop", "Shop-2", "a.b_c", "0", "x" * 100])
def test_plain_names_are_app_ids(app_id: str) -> None:
    """Letters, digits, dot, dash and underscore pass unchanged."""
    assert keys.check_app_id(app_id) == app_id


@pytest.mark.parametrize("app_id", ["", "a:1", "{a}", "a}", "a b", "a\n", "-a", "é", "a/b", "x" * 101, "a\x00"])
def test_names_that_would_break_keys_are_refused(app_id: str) -> None:
    """Braces, colons, spaces, control characters, other alphabets and very long names are refused."""
    with pytest.raises(InvalidSettings, match="APP_ID"):
        keys.check_app_id(app_id)


def test_buckets_use_their_whole_range() -> None:
    """Customers fill all 256 buckets about evenly; the bucket of an id never changes, or its state would be lost."""
    counts = [0] * keys.BUCKETS
    for number in range(10_000):
        counts[keys.bucket(b"customer-%d" % number)] += 1
    assert 10 < min(counts) <= max(counts) < 80
    assert [keys.bucket(raw) for raw in (b"", b"c-1", "Zoë".encode())] == [0xC2, 0x0C, 0xBE]


def test_customers_lie_where_kafka_sends_them() -> None:
    """The partition of a customer is that of Kafka's Java client (values of its own tests for murmur2)."""
    for text, hashed in (("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)):
        assert keys.partition_of(text, 64) == (hashed & 0x7FFFFFFF) % 64
