"""What a task needs to know of the deployment, in one frozen record."""

from dataclasses import dataclass
from typing import Literal

from streams.engagement.profile import Rules


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules and limits of processing; built from the settings by the composition root.

    `inputs` maps the full name of each input topic to its suffix in the registry ("cart.v1"); the other topics are full
    names.
    """

    app_id: str
    partitions: int
    inputs: dict[str, str]
    cart_topic: str
    clickstream_topic: str
    scores_topic: str
    triggers_topic: str
    outcomes_topic: str
    metrics_topic: str
    rejected_topic: str
    rules: Rules
    lateness_ms: int = 10_000
    commit_interval_ms: int = 500
    metrics_interval_ms: int = 5_000
    trigger_max_staleness_ms: int = 6 * 3_600_000
    """0: a trigger never goes stale."""
    score_min_delta_hundredths: int = 50
    score_max_age_ms: int = 60_000
    punctuation: bool = True
    exactly_once: bool = False
    """Outputs and offsets of a commit go out in one transaction; else outputs, then offsets."""
    rebuild: bool = False
    on_gap: Literal["stop", "continue"] = "stop"
    dirty_customers_max: int = 4_000
    pending_bytes_max: int = 4_000_000
    profiles_max: int = 50_000
    """Per task; the oldest clean ones leave memory beyond it."""
    timers_page: int = 10_000
    timers_max: int = 20_000
    """Deadlines of carts, and as many of sessions, that a task keeps in memory; the later ones leave it beyond that."""
    fences_per_minute_max: int = 3
    handler_failures_max: int = 100
    """The worker stops when so many of the last 10,000 records of a topic and task failed in the handler."""

    def deployment(self) -> dict[str, str]:
        """What must be equal at every claim; topics may grow."""
        return {
            "partitions": str(self.partitions),
            "group": self.app_id,
            "contract": "1",
            "topics": ",".join(sorted(self.inputs)),
        }
