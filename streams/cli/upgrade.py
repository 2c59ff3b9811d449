"""`pulseline upgrade`: the schema that all workers of a deployment write, raised once all read the newer one."""

import re
from typing import Any, cast

import click

from streams.cli.offline import OfflineProblem, members
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.state import redis_of
from streams.engagement.snapshot import SCHEMA
from streams.errors import NewerSchema
from streams.settings import Settings
from streams.stores import keys
from streams.stores.deployment import FIRST_SCHEMA, SCHEMA_FIELD

TOLD = re.compile(r"\.schema(\d+)$")


def schema_of(member: dict[str, Any]) -> int:
    """Up to which schema a member of the group reads state, by the name it told Kafka."""
    told = TOLD.search(member["client_id"])
    return FIRST_SCHEMA if told is None else int(told[1])


def written(settings: Settings) -> int | None:
    """The schema in which the deployment's state is written; None where there is none yet."""
    with redis_of(settings) as client:
        stored = cast(dict[bytes, bytes], client.hgetall(keys.deployment(settings.app_id)))
    return int(stored.get(SCHEMA_FIELD.encode(), FIRST_SCHEMA)) if stored else None


@click.command(cls=SettingsCommand)
@click.option("--finish", is_flag=True, help="From now on write the newest schema; older versions cannot come back.")
@takes_settings
def upgrade(settings: Settings, *, finish: bool) -> None:
    """Say in which schema the state is written and what the active workers read.

    A new version goes on writing the old schema, so that both may work side by side and the old one may come back,
    until it is told that all workers are upgraded.
    """
    schema = written(settings)
    if schema is None:
        click.echo(f"{settings.app_id} has no state yet: it will be written in schema {SCHEMA}.")
        return
    if schema > SCHEMA:
        raise NewerSchema(f"the state is written in schema {schema}, this version knows them up to {SCHEMA}")
    read = [schema_of(member) for member in members(settings)]
    older = sum(each < SCHEMA for each in read)
    click.echo(f"State of {settings.app_id} is written in schema {schema}; this version knows them up to {SCHEMA}.")
    click.echo(f"{len(read)} active workers, {older} of an older version.")
    if not finish or schema == SCHEMA:
        if schema < SCHEMA:
            click.echo("Once all workers are upgraded and you will not go back: `pulseline upgrade --finish`.")
        return
    if older:
        raise OfflineProblem(
            f"{older} of {len(read)} active workers read schemas below {SCHEMA} only: upgrade them first"
        )
    with redis_of(settings) as client:
        client.hset(keys.deployment(settings.app_id), SCHEMA_FIELD, str(SCHEMA))
    click.echo(
        f"Each task is written in schema {SCHEMA} from its next claim on: at the latest after a rolling restart."
    )
