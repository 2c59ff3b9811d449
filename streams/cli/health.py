"""`pulseline health`: what a container's health check asks."""

import socket
import sys

import click

from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.topics import admin_of
from streams.settings import Settings

LOOPBACK = "127.0.0.1"
DEAD_STATES = ("Dead", "Empty")


@click.command(cls=SettingsCommand)
@takes_settings
def health(settings: Settings) -> None:
    """Say whether Kafka counts a worker of this machine among its group; exit code 1 unless it does."""
    with admin_of(settings) as admin:
        group = admin.describe_groups([settings.app_id])[settings.app_id]
    here = own_addresses()
    members = [member for member in group["members"] if member["client_host"].lstrip("/") in here]
    well = bool(members) and group["group_state"] not in DEAD_STATES
    click.echo(f"group {settings.app_id} is {group['group_state']}, {len(members)} of its workers run here")
    sys.exit(0 if well else 1)


def own_addresses() -> set[str]:
    """The addresses that Kafka may know this machine by."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        # The name of this machine need not resolve.
        found = set()
    return found | {LOOPBACK}
