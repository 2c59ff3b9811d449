"""What `rebuild` and `repartition` decide before they change anything, without any server."""

import pytest

from streams.cli.offline import OfflineProblem, Partition
from streams.cli.rebuild import Loss, described
from streams.cli.repartition import continued, placed_before, require_drained
from streams.cli.upgrade import schema_of
from streams.engagement.accumulators import Accumulators, Key, field_of
from streams.engagement.metric_memory import remembered
from streams.engagement.metric_values import Published
from streams.engagement.windows import DAY_MS
from streams.processing.book import Book, TopicBook, unpack_book
from streams.settings import Settings

CART = "engagement.cart.v1"
SETTINGS = Settings(partitions=1)


def drained(*, end: int = 7, committed: int | None = 7) -> None:
    """Ask with a task that has read up to 7."""
    books = {0: ("v", Book(0, {CART: TopicBook(position=7, since=0)}))}
    require_drained(SETTINGS, {0: {CART: Partition(start=0, end=end, oldest_ms=None, committed=committed)}}, books)


def test_only_a_drained_deployment_gets_more_tasks() -> None:
    """All read, all published, all begun; each refusal tells the task and the topic."""
    drained()
    with pytest.raises(OfflineProblem, match=f"task 0, {CART}: 2 records are not read"):
        drained(end=9)
    for committed in (6, None):
        with pytest.raises(OfflineProblem, match=f"task 0, {CART}: 0 records are not read, or not all of it"):
            drained(committed=committed)
    with pytest.raises(OfflineProblem, match="task 0 has no state"):
        require_drained(SETTINGS, {0: {}}, {})


def test_a_new_task_goes_on_with_the_clock_of_its_parent() -> None:
    """Else an event that its customers' old task had called late would be in time; records and accounts are its own."""
    parent = Book(5, {CART: TopicBook(position=7, since=2, watermark_ms=900, last_offset=6, applied=5)}, schema=1)
    logs = {CART: Partition(start=3, end=4, oldest_ms=None, committed=None)}
    assert unpack_book(continued(parent, logs)) == Book(
        5, {CART: TopicBook(position=3, since=3, watermark_ms=900)}, schema=1
    )


def test_a_new_task_moves_what_its_parent_counted() -> None:
    """An order named again with an earlier time leaves one day and counts in another, though a parent counted it."""
    book = Book(0, {CART: TopicBook(position=0, since=0, watermark_ms=30 * DAY_MS)})
    moved = ("moved", "order_completed", 29 * DAY_MS, 28 * DAY_MS)
    task = Accumulators.load({placed_before(SETTINGS, book): 0})
    task.add_facts([moved])
    days = {name: value for name, value in task.changed().items() if "|1d|" in name and name.startswith("events|")}
    key = Key("events", (CART, "order_completed"), "events", "1d", 0)
    assert days == {
        field_of(key._replace(start_ms=29 * DAY_MS)): -1,
        field_of(key._replace(start_ms=28 * DAY_MS)): 1,
    }


def test_a_rebuild_tells_what_cannot_come_back() -> None:
    """How much is folded again, from when; and that something is lost, where the log no longer has it."""
    parts = {CART: Partition(start=5, end=12, oldest_ms=1_700_000_000_000, committed=12)}
    lines = list(described(SETTINGS, Loss({0: parts}, kept=[], lost=[0])))
    assert lines[1] == f"  {CART}: 7 records, the oldest of 2023-11-14 22:13:20; 5 older ones are gone"
    assert "7 records again" in lines[2]
    assert any("lost is what only older records told" in line for line in lines)
    whole = {CART: Partition(start=0, end=0, oldest_ms=None, committed=0)}
    lines = list(described(SETTINGS, Loss({0: whole}, kept=[], lost=[0])))
    assert lines[1] == f"  {CART}: empty"
    assert not any("lost is" in line for line in lines)


@pytest.mark.parametrize(
    ("client", "schema"), [("shop.schema3", 3), ("a.schema9.schema2", 2), ("shop", 1), ("PreparingRebalance", 1)]
)
def test_a_worker_tells_the_schema_it_reads(client: str, schema: int) -> None:
    """One that tells nothing is older than the telling; so a group in motion does not count as upgraded."""
    assert schema_of({"client_id": client}) == schema


def record(revision: int, watermark_ms: int, **changes: object) -> dict[str, object]:
    return {
        "metric": "events",
        "dimensions": {"topic": CART, "type": "product_added"},
        "window": "60s",
        "window_start_ms": 0,
        "window_end_ms": 60_000,
        "numerator": revision,
        "denominator": None,
        "final": False,
        "revision": revision,
        "watermark_ms": watermark_ms,
    } | changes


def test_what_was_told_is_read_back_as_a_reader_ends_with_it() -> None:
    """The highest (watermark_ms, revision) of a window; metrics or dimensions no longer known are nothing to keep."""
    records = [
        record(2, 900),
        record(3, 800),
        record(1, 950, window_start_ms=60_000),
        record(9, 9_999, metric="gone"),
        record(9, 9_999, dimensions={"topic": CART}),
    ]
    published, told = remembered(records)
    assert {value.revision for value in published.values()} == {1, 2}
    assert Published(2, None, False, 2, 60_000) in published.values()
    assert told == {"cart": 950}
