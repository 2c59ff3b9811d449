"""`pulseline stack`: up, status, down, logs."""

import os
import sys
import time
from pathlib import Path

import click

from streams.settings.sources import read_dotenv
from streams.stack.bring_up import Through, bring_up, health, log_text, take_down, without_secrets
from streams.stack.state import read_state, stack_folder


def _say(message: str) -> None:
    click.echo(message, err=True)


def _environ() -> dict[str, str]:
    return {**read_dotenv(Path(".env")), **os.environ}


@click.group("stack")
def stack_group() -> None:
    """Kafka and Redis on this machine."""


@stack_group.command()
@click.option(
    "--through",
    type=click.Choice(["auto", "compose", "local"]),
    default="auto",
    show_default=True,
    help="Docker Compose, plain processes, or whichever this machine can do.",
)
@click.pass_context
def up(context: click.Context, through: Through) -> None:
    """Bring Kafka and Redis up, wait until they serve, and create the topics."""
    begun = time.monotonic()
    state = bring_up(_environ(), through=through, say=_say)
    click.echo(
        f"Kafka {state.bootstrap}, Redis {without_secrets(state.redis_url)} ({state.how}): "
        f"ready after {time.monotonic() - begun:.1f} s"
    )
    root = context.find_root().command
    if isinstance(root, click.Group) and root.get_command(context, "topics") is not None:
        root.main(["topics", "apply"], prog_name=context.find_root().info_name, standalone_mode=False)


@stack_group.command()
def status() -> None:
    """Say where the servers are and whether they answer; exit code 1 unless both do."""
    environ = _environ()
    found = health(environ)
    state = read_state(stack_folder(environ))
    click.echo(f"Kafka {found.bootstrap}: {'answers' if found.kafka else 'does not answer'}")
    click.echo(f"Redis {without_secrets(found.redis_url)}: {'answers' if found.redis else 'does not answer'}")
    click.echo(f"brought up: {state.how if state else 'no'} (data in {stack_folder(environ)})")
    sys.exit(0 if found.well else 1)


@stack_group.command()
@click.option("--delete", is_flag=True, help="Delete all data of Kafka and Redis as well.")
def down(delete: bool) -> None:
    """Stop what `up` started; the data stays unless --delete is given."""
    take_down(_environ(), delete=delete, say=_say)
    click.echo("stopped, data deleted" if delete else "stopped")


@stack_group.command()
@click.argument("service", type=click.Choice(["kafka", "redis"]), required=False)
@click.option("--lines", default=50, show_default=True, help="How many of the last lines.")
def logs(service: str | None, lines: int) -> None:
    """Show the end of the servers' logs."""
    click.echo(log_text(_environ(), service, lines))
