"""`pulseline watch`: what the workers publish, as it is published."""

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from streams.cli.board import Board
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.tail import follow
from streams.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S = 0.25
SUMMARY_S = 10.0


class Follower(threading.Thread):
    """Follows the output topics into a board; `lines` collects what is printed where there is no terminal."""

    def __init__(self, settings: Settings, board: Board, *, also: Callable[[str, Any], None] | None = None) -> None:
        super().__init__(name="follower", daemon=True)
        self.board = board
        self.ready = threading.Event()
        self.stopping = threading.Event()
        self.error: Exception | None = None
        self._settings = settings
        self._also = also
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            follow(self._settings, self._hear, self.stopping, ready=self.ready)
        except Exception as error:  # noqa: BLE001 - raised again where people see it, by `check`
            self.error = error
            self.ready.set()

    def _hear(self, suffix: str, record: Any) -> None:
        with self._lock:
            line = self.board.take(suffix, record)
            if line is not None:
                self._lines.append(line)
        if self._also is not None:
            self._also(suffix, record)

    def lines(self) -> list[str]:
        """The lines since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
            return lines

    def screen(self, title: str, height: int) -> "RenderableType":
        """The board as it is now."""
        with self._lock:
            return self.board.screen(title, "Ctrl-C ends", height=height)

    def check(self) -> None:
        """Raise what ended the following, if something did."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopping.set()
        self.join(5)


def show(follower: Follower, title: Callable[[], str], ending: Callable[[], bool]) -> None:
    """Show the board until `ending` says so or Ctrl-C: a live screen on a terminal, else a line for each thing seen."""
    if sys.stdout.isatty():
        _show_screen(follower, title, ending)
    else:
        _show_lines(follower, title, ending)


def _show_screen(follower: Follower, title: Callable[[], str], ending: Callable[[], bool]) -> None:
    from rich.live import Live

    with Live(refresh_per_second=4, screen=False, vertical_overflow="crop") as live:
        while not ending():
            follower.check()
            follower.lines()
            live.update(follower.screen(title(), live.console.height))
            time.sleep(REFRESH_S)


def _show_lines(follower: Follower, title: Callable[[], str], ending: Callable[[], bool]) -> None:
    summary_s = 0.0
    while not ending():
        follower.check()
        for line in follower.lines():
            click.echo(f"{datetime.now(UTC):%H:%M:%S} {line}")
        if time.monotonic() - summary_s >= SUMMARY_S:
            summary_s = time.monotonic()
            click.echo(f"{datetime.now(UTC):%H:%M:%S} {title()}: {follower.board.summary()}")
        sys.stdout.flush()
        time.sleep(REFRESH_S)


@click.command(cls=SettingsCommand)
@click.option("--duration", help="End after this time (90s, 5m) instead of at Ctrl-C.")
@takes_settings
def watch(settings: Settings, *, duration: str | None) -> None:
    """See scores, triggers, outcomes and rejected records as they are published."""
    from models.outputs import parse_duration

    try:
        end_s = None if duration is None else time.monotonic() + parse_duration(duration) / 1_000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--duration") from None
    follower = Follower(settings, Board())
    follower.start()
    try:
        follower.ready.wait()
        show(
            follower,
            lambda: f"Pulseline {settings.topic_prefix} at {settings.kafka_bootstrap}",
            lambda: end_s is not None and time.monotonic() >= end_s,
        )
    except KeyboardInterrupt:
        click.echo()
    finally:
        follower.stop()
