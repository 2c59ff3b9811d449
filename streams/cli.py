"""The `pulseline` command."""

import click


@click.group()
def main() -> None:
    """Live engagement scores and cart-abandonment triggers from Kafka."""
