"""`pulseline worker`."""

import sys

import click

from streams.cli.options import SettingsCommand, takes_settings
from streams.settings import Settings


@click.command(cls=SettingsCommand)
@takes_settings
def worker(settings: Settings) -> None:
    """Run workers until they are stopped; --workers N runs N of them side by side.

    SIGTERM and Ctrl-C commit what was done and leave the group.
    """
    from streams.worker import run_workers

    sys.exit(run_workers(settings, settings.workers))
