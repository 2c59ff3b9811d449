"""Telling a person who waits what is waited for."""

import sys
import time
from types import TracebackType
from typing import Self

import click

PATIENCE_S = 1.5
BETWEEN_LINES_S = 10.0
"""Where each message is a line of its own, the next one waits longer."""


class Waiting:
    """Says what is waited for once that takes longer than PATIENCE_S, and again now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun_s = self._said_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._said_s > self._begun_s and sys.stderr.isatty():
            click.echo(err=True)

    def tick(self, state: str = "") -> None:
        """Call this now and then while waiting; `state` is how far it is."""
        now_s = time.monotonic()
        said_before = self._said_s > self._begun_s
        patience_s = BETWEEN_LINES_S if said_before and not sys.stderr.isatty() else PATIENCE_S
        if now_s - self._said_s < patience_s:
            return
        self._said_s = now_s
        line = f"{self._what}: {state + ', ' if state else ''}{now_s - self._begun_s:.0f} s"
        click.echo(f"\r{line:<79}", err=True, nl=False) if sys.stderr.isatty() else click.echo(line, err=True)
