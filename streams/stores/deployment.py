"""When two deployments may share one state, and in which schema they write it."""

from collections.abc import Mapping

from streams.engagement.snapshot import SCHEMA
from streams.errors import DeploymentMismatch, NewerSchema

SCHEMA_FIELD = "schema"
GROWING_FIELD = "growing"
"""How many tasks there will be, while the number is changed."""
FIRST_SCHEMA = 1
"""Of a deployment that was stored before it told its schema."""


def settled(stored: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The deployment to store: as wanted, with the schema that all its workers write, the newest one at first.

    Raises DeploymentMismatch unless nothing is stored, all is equal, or only topics (a comma list) were added;
    NewerSchema where the schema was raised beyond what this version knows.
    """
    compare(stored, wanted)
    schema = int(stored.get(SCHEMA_FIELD, FIRST_SCHEMA if stored else SCHEMA))
    if schema > SCHEMA:
        raise NewerSchema(
            f"the state is written in schema {schema}, this version knows them up to {SCHEMA}: upgrade this worker"
        )
    return {**wanted, SCHEMA_FIELD: str(schema)}


def compare(stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise DeploymentMismatch where what is stored was made otherwise than is wanted."""
    if GROWING_FIELD in stored:
        raise DeploymentMismatch(f"`pulseline repartition --to {stored[GROWING_FIELD]}` did not end: run it again")
    for name, there in stored.items():
        if name == SCHEMA_FIELD:
            continue
        here = wanted.get(name)
        grown = name == "topics" and here is not None and set(there.split(",")) <= set(here.split(","))
        if there != here and not grown:
            raise DeploymentMismatch(
                f"the stored state was made with {name}={there}, this worker has {name}={here}: "
                f"start it with the same {name}, or under another APP_ID"
            )
