"""The core and its protocol against the independent fold: difficult histories, and workers that die, freeze, fall back.

Compared are every customer's profile as stored, every trigger, outcome, cancel, score and rejected record, the account
of every record, and every accumulator of the metrics.
"""

import pytest

from streams.processing import processor
from streams.producer.plan import plan
from tests.support.history import fold_of, harsh_script, history_world, verdict_of
from tests.support.storm import Storm
from tests.support.totals import disagreements, summed, totals_of

EVENTS = 2_500
MANY = 10**6


@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_the_state_and_outputs_of_a_storm_equal_the_fold(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at every step of a commit, frozen and woken, the store fallen back: nothing lost, nothing invented."""
    monkeypatch.setattr(processor, "BACKOFF_FIRST_MS", 0)
    world = history_world(fences_per_minute_max=MANY, profiles_max=60)
    storm = Storm(world, list(plan(harsh_script(seed, EVENTS))), seed)
    await storm.play()
    result = fold_of(world)
    verdict = await verdict_of(world, result)
    assert verdict.ok, f"{storm.happened}\n{verdict.text()}"
    assert verdict.decisions > 300
    wanted, got = totals_of(result.metrics, "engagement"), summed([await world.store.accumulators(0)])
    assert disagreements(wanted, got) == []
    assert len(got) > 1_000
