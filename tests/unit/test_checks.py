"""The demo's checks: each one can fail, and says what it saw."""

import json
from dataclasses import dataclass, field
from typing import Any

from models.outputs import RejectedHeaders
from streams.cli.board import Board
from streams.cli.checks import Seen, demo_checks
from streams.cli.state import Accounted
from streams.processing.book import Book, TopicBook
from streams.producer.ledger import Ledger, entry_of
from streams.settings import Settings

SETTINGS = Settings(partitions=2, lateness_ms=2_000)
TRIGGER = {
    "action": "send",
    "trigger_id": "t-1",
    "customer_id": "c-1",
    "cart_id": None,
    "step": "15s",
    "items_count": 1,
    "total_minor": 1_290,
    "currency": "EUR",
    "score": 5.44,
    "last_touch_ms": 100_000,
    "due_ms": 115_000,
    "emitted_ms": 117_200,
}
RECOVERED = {
    "outcome": "recovered",
    "customer_id": "c-1",
    "cart_id": None,
    "order_total_minor": 1_290,
    "currency": "EUR",
    "occurred_at_ms": 120_000,
    "reason": None,
}


@dataclass
class Record:
    value: bytes = b""
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def board_of(*outputs: tuple[str, dict[str, Any]], rejected: int = 1) -> Board:
    board = Board()
    for suffix, value in outputs:
        board.take(suffix, Record(json.dumps(value).encode()))
    headers = RejectedHeaders(topic="t", partition=0, offset=1, reason="NotJson", message="m").appended_to([])
    for _ in range(rejected):
        board.take("rejected.v1", Record(headers=headers))
    return board


def ledger_of(*events: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    for number, event in enumerate(({"type": "product_added", "occurred_at_ms": 100_000}, *events)):
        fields = {"event_id": f"e-{number}", "customer_id": "c-1"} | event
        ledger.write(entry_of("engagement.cart.v1", "", fields, (0, number, fields["occurred_at_ms"])))
    return ledger


def account_of(*tasks: TopicBook) -> Accounted:
    account = Accounted()
    for number, book in enumerate(tasks):
        account.take(number, Book(since_ms=0, topics={"engagement.cart.v1": book}))
    return account


def held(**changes: Any) -> list[str]:
    """The names of the checks that failed, everything being well but for the changes."""
    given: dict[str, Any] = {
        "board": board_of(("triggers.v1", TRIGGER), ("outcomes.v1", RECOVERED)),
        "ledger": ledger_of(),
        "seen": Seen(workers=2, first_trigger_s=20.0, since_first_event_s=17.5),
        "in_log": 3,
        "account": account_of(
            TopicBook(position=2, since=0, applied=1, control=1), TopicBook(position=1, since=0, rejected=1)
        ),
    } | changes
    return [check.what for check in demo_checks(SETTINGS, **given) if not check.held]


def test_all_is_well_where_everything_adds_up():
    """No check fails without a reason."""
    assert held() == []


def test_every_check_can_fail():
    """A record too many, a missing worker or task, nothing seen, a trigger against the evidence."""
    well = TopicBook(position=2, since=0, applied=2)
    order = {"type": "order_completed", "occurred_at_ms": 110_000, "order_id": "o"}
    assert held(in_log=4) == ["records in Kafka = accounted for"]
    assert held(in_log=2) == ["records in Kafka = accounted for"]
    assert held(ledger=ledger_of(order | {"occurred_at_ms": 1}, order | {"occurred_at_ms": 2})) == [
        "the simulator's records are all among them"
    ]
    assert held(seen=Seen(1, None, None)) == ["two workers were active"]
    assert held(account=account_of(well, TopicBook(position=0, since=0)), in_log=2) == ["all tasks were active"]
    assert held(board=board_of(("outcomes.v1", RECOVERED))) == ["triggers were seen"]
    assert held(board=board_of(("triggers.v1", TRIGGER))) == ["carts were recovered"]
    assert held(board=board_of(("triggers.v1", TRIGGER), ("outcomes.v1", RECOVERED), rejected=0)) == [
        "bad records were rejected"
    ]
    assert held(ledger=ledger_of(order)) == ["no trigger contradicts the simulator's log"]


def test_the_first_trigger_is_timed():
    """Its time on screen stands in the figures."""
    account = account_of(TopicBook(position=1, since=0, applied=1))
    seen = Seen(workers=2, first_trigger_s=20.04, since_first_event_s=17.5)
    checks = demo_checks(
        SETTINGS, board=board_of(("triggers.v1", TRIGGER)), ledger=ledger_of(), seen=seen, in_log=1, account=account
    )
    (figures,) = [check.figures for check in checks if check.what == "triggers were seen"]
    assert figures == "1, the first on screen after 20.0 s (17.5 s after the first event)"
