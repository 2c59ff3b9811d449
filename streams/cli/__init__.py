"""The `pulseline` command. A subcommand's module is imported only when it runs, so that `pulseline --help` is quick."""

from importlib import import_module
from typing import Any

import click

from streams.errors import PulselineError

# Subcommand -> (module, attribute, one line of help).
COMMANDS = {
    "demo": (
        "streams.cli.demo",
        "demo",
        "See it all at work in a minute, with simulated shoppers.",
    ),
    "worker": ("streams.cli.work", "worker", "Run workers."),
    "simulate": ("streams.cli.simulate", "simulate", "Send what simulated shoppers do."),
    "watch": (
        "streams.cli.watch",
        "watch",
        "See live what the workers publish.",
    ),
    "customer": ("streams.cli.ask", "customer", "Show one customer's profile."),
    "explain": ("streams.cli.ask", "explain", "Say why a trigger fired."),
    "topics": ("streams.cli.topics", "topics", "Create the topics, or compare them with the registry."),
    "stack": ("streams.stack.cli", "stack_group", "Kafka and Redis on this machine."),
    "rebuild": ("streams.cli.rebuild", "rebuild", "Fold the retained log again, where the state is lost."),
    "repartition": ("streams.cli.repartition", "repartition", "Give a deployment more tasks."),
    "upgrade": ("streams.cli.upgrade", "upgrade", "Say in which schema state is written, and raise it."),
    "health": ("streams.cli.health", "health", "Say whether a worker of this machine is at work."),
    "config": ("streams.cli.config", "config", "Show every setting and where it comes from."),
}


class Failure(click.ClickException):
    """A PulselineError as a message and an exit code."""

    def __init__(self, error: PulselineError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for, and turns PulselineErrors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PulselineError as error:
            raise Failure(error) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pulseline")
def main() -> None:
    """Live engagement scores and cart-abandonment triggers from Kafka, with state in Redis.

    Settings are read from flags, PULSELINE_* variables and a .env file, in this order: `pulseline config` shows them.
    """
