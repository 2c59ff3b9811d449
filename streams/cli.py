"""The `pulseline` command."""

import click

from streams.stack.cli import stack_group


@click.group()
def main() -> None:
    """Live engagement scores and cart-abandonment triggers from Kafka."""


main.add_command(stack_group)
