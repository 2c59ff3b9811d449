"""`pulseline stack`: up, status, down, logs."""

import os
import sys
import time

import click

from streams.stack.bring_up import Through, bring_up, health, log_text, take_down
from streams.stack.state import BOOTSTRAP_VARIABLE, REDIS_VARIABLE, StackState, read_state, stack_folder
from streams.stack.waiting import StackProblem


def _say(message: str) -> None:
    click.echo(message, err=True)


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
    try:
        state = bring_up(os.environ, through=through, say=_say)
    except StackProblem as problem:
        raise click.ClickException(str(problem)) from problem
    click.echo(
        f"Kafka {state.bootstrap}, Redis {state.redis_url} ({state.how}): ready after {time.monotonic() - begun:.1f} s"
    )
    _apply_topics(context, state)


@stack_group.command()
def status() -> None:
    """Say where the servers are and whether they answer; exit code 1 unless both do."""
    found = health(os.environ)
    state = read_state(stack_folder())
    click.echo(f"Kafka {found.bootstrap}: {'answers' if found.kafka else 'does not answer'}")
    click.echo(f"Redis {found.redis_url}: {'answers' if found.redis else 'does not answer'}")
    click.echo(f"brought up: {state.how if state else 'no'} (data in {stack_folder()})")
    sys.exit(0 if found.well else 1)


@stack_group.command()
@click.option("--delete", is_flag=True, help="Delete all data of Kafka and Redis as well.")
def down(delete: bool) -> None:
    """Stop what `up` started; the data stays unless --delete is given."""
    try:
        take_down(os.environ, delete=delete, say=_say)
    except StackProblem as problem:
        raise click.ClickException(str(problem)) from problem
    click.echo("stopped" + (", data deleted" if delete else ""))


@stack_group.command()
@click.argument("service", type=click.Choice(["kafka", "redis"]), required=False)
@click.option("--lines", default=50, show_default=True, help="How many of the last lines.")
def logs(service: str | None, lines: int) -> None:
    """Show the end of the servers' logs."""
    click.echo(log_text(os.environ, service, lines))


def _apply_topics(context: click.Context, state: StackState) -> None:
    """Run `topics apply` of the command that this group belongs to, if it has one, against the stack."""
    root = context.find_root().command
    if isinstance(root, click.Group) and root.get_command(context, "topics") is not None:
        os.environ.setdefault(BOOTSTRAP_VARIABLE, state.bootstrap)
        os.environ.setdefault(REDIS_VARIABLE, state.redis_url)
        root.main(["topics", "apply"], prog_name=context.find_root().info_name, standalone_mode=False)
