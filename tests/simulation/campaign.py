"""Random schedules: one seed is one run. `make simulate SEEDS=1000` runs seeds 0 to 999, `SEEDS=7:8` seed 7.

A failing seed is printed with its faults, its schedule cut short and told step by step, and how to run it again.
"""

import gc
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from random import Random

from tests.simulation.driver import Simulation
from tests.simulation.generator import Generator, Setting
from tests.simulation.shrink import shrunk, story
from tests.simulation.stage import understood
from tests.simulation.verdict import drain, faults_of

PROGRESS_S = 30
CHUNK = 20
COLLECT_EVERY = 50_000
"""Objects made before the garbage collector looks; a run leaves cycles behind, but no more than some megabytes."""
LINES_MAX = 4
SHRUNK_MAX = 5
"""Of the seeds that fail, so many are cut short, which takes up to minutes each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed; tally: what was done in it, what went wrong on purpose, and what was checked."""

    seed: int
    setting: Setting
    labels: list[str]
    faults: dict[str, list[str]]
    tally: Counter[str]


def run(seed: int) -> Outcome:
    """Run a seed."""
    rng = Random(seed)
    setting = Setting.of(rng)
    simulation = setting.simulation()
    generator = Generator(rng, setting, simulation)
    for _ in range(setting.steps):
        generator.step()
    labels = simulation.done.copy()
    faults = judged(simulation, setting)
    return Outcome(seed, setting, labels, faults, counted(simulation, labels))


def replay(setting: Setting, labels: list[str]) -> dict[str, list[str]]:
    """The faults of a schedule under the setting of a seed."""
    return judged(setting.simulation().run(labels), setting)


def judged(simulation: Simulation, setting: Setting) -> dict[str, list[str]]:
    """Its faults; an error of a driver, a fold or a core is one too."""
    try:
        if setting.lost_when_calm and drain(simulation):
            simulation.do(f"fail:{max(0, simulation.store.writes - 2 - setting.lost_when_calm)}")
        return faults_of(simulation)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
        simulation.loop.shut()
        return {f"{type(error).__name__}": [str(error)]}


def counted(simulation: Simulation, labels: list[str]) -> Counter[str]:
    """What a run did, by `section/what`."""
    tally = simulation.tally
    tally["driven/seeds"] += 1
    tally["driven/steps"] += len(labels)
    for label in labels:
        _, method, args = understood(label)
        what = NAMES.get(method)
        if what is not None:
            tally[what] += 1
        elif method in ("_err_by", "_fatal_by"):
            tally[f"calls that failed/{args[0]}"] += 1
    for what, *_ in simulation.store.effects:
        if what in EFFECTS:
            tally[EFFECTS[what]] += 1
    tally.update({f"faults/refused {kind}": times for kind, times in simulation.network.refused.items()})
    return tally


NAMES = {
    "_send": "driven/events sent",
    "_mail": "driven/events sent",
    "_again": "faults/duplicates sent",
    "_rubbish": "faults/rubbish sent",
    "_jump": "faults/jumps of time",
    "_clock": "faults/jumps of the log's clock",
    "_clock_by": "faults/jumps of a worker's clock",
    "_fail": "faults/failovers",
    "_wipe": "faults/losses of all state",
    "_reb": "faults/rebalances",
    "_notice_by": "faults/rebalances noticed late",
    "_release_by": "faults/tasks given back",
    "_lost": "faults/requests lost",
    "_late": "faults/requests answered too late",
    "_crash_by": "faults/crashes",
    "_half_by": "faults/partial publications",
    "_refetch_by": "faults/records handed in again",
    "_freeze_by": "faults/freezes",
}
EFFECTS = {"claim": "driven/claims", "commit": "driven/commits", "fenced": "driven/fences"}


def report(outcome: Outcome) -> str:
    """A failing seed for people."""
    seed, kind = outcome.seed, next(iter(outcome.faults))
    setting, labels = shrunk(outcome.setting, outcome.labels, lambda *tried: kind in replay(*tried))
    lines = [in_short(outcome)]
    lines += [f"  cut short to {len(labels)} of {len(outcome.labels)} steps, under {setting.world} {setting.plan}:"]
    lines += [f"    {line}" for line in story(setting, labels)]
    if setting.lost_when_calm:
        lines.append(f"    then all heals, and a failover loses the last {setting.lost_when_calm} writes")
    lines += [f"  then: {name}: {line[:600]}" for name, found in replay(setting, labels).items() for line in found[:1]]
    return "\n".join([*lines, f"  again: make simulate SEEDS={seed}:{seed + 1}"])


def in_short(outcome: Outcome) -> str:
    """What went wrong with a seed, nothing cut short."""
    found = [f"  {name}: {line[:600]}" for name, lines in outcome.faults.items() for line in lines[:LINES_MAX]]
    return "\n".join([f"seed {outcome.seed}: {', '.join(outcome.faults)}", *found])


def chunk(seeds: range) -> tuple[Counter[str], list[Outcome]]:
    """Run seeds; their tallies added up, and those that failed."""
    logging.disable(logging.CRITICAL)
    gc.set_threshold(COLLECT_EVERY)
    tally: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        outcome = run(seed)
        tally.update(outcome.tally)
        if outcome.faults:
            failed.append(outcome)
    return tally, failed


def on_all_processors(seeds: range) -> Iterator[tuple[Counter[str], list[Outcome]]]:
    """`chunk` after `chunk`."""
    with ProcessPoolExecutor() as pool:
        yield from pool.map(chunk, [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)])


def summary(tally: Counter[str]) -> str:
    """The tally for people, a line a section."""
    sections: dict[str, list[str]] = {}
    for name, times in sorted(tally.items()):
        section, _, what = name.partition("/")
        sections.setdefault(section, []).append(f"{times:,} {what}")
    return "\n".join(f"{section}: {', '.join(parts)}" for section, parts in sorted(sections.items()))


def main(wanted: str) -> int:
    """Run the seeds on all processors; returns how many failed."""
    logging.disable(logging.CRITICAL)
    first, _, end = wanted.rpartition(":")
    seeds = range(int(first or 0), int(end))
    begun = shown = time.monotonic()
    tally: Counter[str] = Counter()
    failed = 0
    for counts, outcomes in on_all_processors(seeds):
        tally.update(counts)
        for outcome in outcomes:
            failed += 1
            print(report(outcome) if failed <= SHRUNK_MAX else in_short(outcome), flush=True)
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            print(progress(tally["driven/seeds"], len(seeds), failed, shown - begun), flush=True)
    print(f"seeds {seeds.start} to {seeds.stop - 1}: {failed} of {len(seeds):,} failed", flush=True)
    elapsed = time.monotonic() - begun
    print(f"{elapsed:.0f} s, {len(seeds) / elapsed:.1f} seeds a second\n{summary(tally)}", flush=True)
    return failed


def progress(done: int, seeds: int, failed: int, elapsed_s: float) -> str:
    """A line while it runs."""
    rate = done / elapsed_s
    to_go = f"{(seeds - done) / rate / 60:.0f} min to go"
    return f"... {done:,} of {seeds:,} seeds, {failed} failed, {rate:.1f} a second, {to_go}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) > 0)
