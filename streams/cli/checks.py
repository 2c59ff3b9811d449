"""What the demo must have shown, checked after it: every record accounted for, and no trigger against the evidence."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.topics import INPUT_TOPICS
from streams.cli.board import Board
from streams.cli.progress import Waiting
from streams.cli.state import Accounted, accounted
from streams.cli.tail import records_in
from streams.producer.ledger import Ledger
from streams.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, whether it did, and the figures."""

    what: str
    held: bool
    figures: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen while the demo ran: most workers at once, and the first trigger on screen, in seconds."""

    workers: int
    first_trigger_s: float | None
    since_first_event_s: float | None


def await_accounted(settings: Settings, timeout_s: float) -> tuple[int, Accounted]:
    """(records in the input topics, their account) once both are equal, or as they stand after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    with Waiting("waiting until every record is accounted for") as waiting:
        while True:
            before = sum(records_in(settings, INPUT_TOPICS).values())
            account = accounted(settings)
            # A control record may have come in between: only a log that stood still can be compared.
            if account.records == before or time.monotonic() >= end_s:
                return before, account
            waiting.tick(f"{account.records:,} of {before:,}")
            time.sleep(POLL_S)


def contradicted(triggers: Iterable[Mapping[str, Any]], ledger: Ledger, lateness_ms: int) -> dict[str, list[str]]:
    """trigger_id -> why, of every trigger that the simulator's own log speaks against."""
    found = {trigger["trigger_id"]: ledger.contradictions(trigger, lateness_ms) for trigger in triggers}
    return {trigger_id: reasons for trigger_id, reasons in found.items() if reasons}


def demo_checks(
    settings: Settings, *, board: Board, ledger: Ledger, seen: Seen, in_log: int, account: Accounted
) -> list[Check]:
    """All checks of a demo."""
    parts = " + ".join(f"{number:,} {name}" for name, number in account.outcomes.items() if number)
    wrong = contradicted(board.triggers, ledger, settings.lateness_ms)
    sent, foreign = ledger.records, account.sent - ledger.records
    others = f"; {foreign:,} more from other producers" if foreign > 0 else ""
    first = "" if seen.first_trigger_s is None else f", the first on screen after {seen.first_trigger_s:.1f} s"
    if seen.since_first_event_s is not None:
        first += f" ({seen.since_first_event_s:.1f} s after the first event)"
    reasons = ", ".join(f"{reason} {number}" for reason, number in board.rejected.most_common())
    doubts = "; ".join(f"{trigger_id}: {', '.join(why)}" for trigger_id, why in wrong.items())
    return [
        Check("records in Kafka = accounted for", in_log == account.records, f"{in_log:,} = {parts or '0'}"),
        Check(
            "the simulator's records are all among them",
            0 < sent <= account.sent,
            f"{sent:,} of {account.sent:,}{others}",
        ),
        Check("two workers were active", seen.workers >= 2, f"{seen.workers}"),
        Check(
            "all tasks were active",
            len(account.active) == settings.partitions,
            f"{len(account.active)} of {settings.partitions}",
        ),
        Check("triggers were seen", board.counts["sends"] > 0, f"{board.counts['sends']}{first}"),
        Check("carts were recovered", board.outcomes["recovered"] > 0, f"{board.outcomes['recovered']}"),
        Check("bad records were rejected", board.counts["rejected"] > 0, reasons or "none"),
        Check(
            "no trigger contradicts the simulator's log",
            not wrong,
            doubts or f"{len(board.triggers)} triggers against {ledger.records:,} records",
        ),
    ]


def checks_table(checks: Iterable[Check]) -> "Table":
    """The checks for people."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="What the demo showed", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("check")
    table.add_column("figures", overflow="fold")
    for check in checks:
        table.add_row("[green]ok[/]" if check.held else "[bold red]NO[/]", check.what, check.figures)
    return table
