"""When two deployments may share one state."""

from collections.abc import Mapping

from streams.errors import DeploymentMismatch


def compare(stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise DeploymentMismatch unless nothing is stored, all is equal, or only topics (a comma list) were added."""
    for name, there in stored.items():
        here = wanted.get(name)
        grown = name == "topics" and here is not None and set(there.split(",")) <= set(here.split(","))
        if there != here and not grown:
            raise DeploymentMismatch(
                f"the stored state was made with {name}={there}, this worker has {name}={here}: "
                f"start it with the same {name}, or under another APP_ID"
            )
