"""`pulseline health`: what a container's health check asks."""

import socket
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any

import click
import msgspec

from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.topics import admin_of
from streams.settings import Settings

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - asked at the loopback address
ANSWER_WITHIN_S = 5.0
DEAD_STATES = ("Dead", "Empty")


@click.command(cls=SettingsCommand)
@takes_settings
def health(settings: Settings) -> None:
    """Say whether the workers of this machine are ready; exit code 1 unless they are.

    Asks each on its WEB_PORT; where none answers there, Kafka, whether it counts a worker of this machine in the group.
    """
    ports = range(settings.web_port, settings.web_port + settings.workers) if settings.web_port else range(0)
    answers = [answer for port in ports if (answer := ready(settings.web_host, port)) is not None]
    if not answers:
        sys.exit(0 if is_member(settings) else 1)
    for answer in answers:
        click.echo("ready" if answer["ready"] else "not ready: " + "; ".join(answer["reasons"]))
    sys.exit(0 if all(answer["ready"] for answer in answers) and len(answers) == len(ports) else 1)


def ready(host: str, port: int) -> dict[str, Any] | None:
    """What a worker answers to /health/ready; None where no worker of ours answers."""
    connection = HTTPConnection(LOOPBACK if host in ANY_ADDRESS else host, port, timeout=ANSWER_WITHIN_S)
    try:
        connection.request("GET", "/health/ready")
        told = msgspec.json.decode(connection.getresponse().read())
    except (OSError, HTTPException, msgspec.DecodeError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) and {"ready", "reasons"} <= told.keys() else None


def is_member(settings: Settings) -> bool:
    """Whether Kafka counts a worker of this machine among the group's living members; tells what it found."""
    with admin_of(settings) as admin:
        group = admin.describe_groups([settings.app_id])[settings.app_id]
    here = own_addresses()
    members = [member for member in group["members"] if member["client_host"].lstrip("/") in here]
    click.echo(f"group {settings.app_id} is {group['group_state']}, {len(members)} of its workers run here")
    return bool(members) and group["group_state"] not in DEAD_STATES


def own_addresses() -> set[str]:
    """The addresses that Kafka may know this machine by."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        # The name of this machine need not resolve.
        found = set()
    return found | {LOOPBACK}
