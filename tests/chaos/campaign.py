"""The chaos table: `make chaos` plays every scenario under both guarantees and prints what was lost, and what was not.

RUNS=3 plays each three times, SCENARIO=kills,flush only those, GUARANTEE=exactly_once only that, SEED=7 from that seed.
"""

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.runner import Run, play
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.support.brokers import run_brokers

GUARANTEES = ("at_least_once", "exactly_once")
REPORT = Path(".cache/chaos/report.json")
HEAD = ("scenario", "runs", "records", "faults", "lost", "ghost", "different", "repeated", "once", "catch-up s")
"""repeated: same id, at_least_once; once: the same under exactly_once; catch-up: median and maximum."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print, write the report; 1 where a run failed."""
    asked = parse(arguments)
    earlier = [Run(**fields) for fields in json.loads(asked.report.read_text())] if asked.add else []
    runs: list[Run] = []
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the loader's own connections break, too
    with run_brokers() as brokers:
        for guarantee in asked.guarantee:
            for seed in range(asked.seed, asked.seed + asked.runs):
                for scenario in asked.scenario:
                    print(f"{scenario.name}, {guarantee}, seed {seed}: {scenario.claim}", flush=True)
                    runs.append(play(scenario, guarantee, seed, brokers, keep=asked.report.parent))
                    tell(runs[-1])
                    write(asked.report, earlier, runs)
    print(table(merged(earlier, runs)))
    print(f"each run: {asked.report}")
    return int(not all(run.ok for run in runs))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}

    def scenarios(text: str) -> list[Scenario]:
        return [by_name[name] for name in text.split(",")] if text else list(SCENARIOS)

    def guarantees(text: str) -> list[str]:
        return text.split(",") if text else list(GUARANTEES)

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", type=scenarios, default="", help=f"of {', '.join(by_name)}; all if not given")
    parser.add_argument(
        "--guarantee", type=guarantees, default="", help=f"of {', '.join(GUARANTEES)}; both if not given"
    )
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--add", action="store_true", help="keep the runs of the report that are not played again")
    return parser.parse_args(arguments)


def tell(run: Run) -> None:
    """One line, and what went wrong."""
    catch_up = f"{statistics.median(run.catch_up_s):.1f}/{max(run.catch_up_s):.1f}" if run.catch_up_s else "-"
    print(
        f"  {'ok' if run.ok else 'FAILED'} in {run.seconds:.0f} s: {run.records} records ({run.rubbish} rubbish), "
        f"{run.triggers} triggers, faults {run.faults}; lost {run.lost}, ghost {run.ghost}, different {run.different}, "
        f"repeated {run.repeated}, below offsets {run.repeated_below_offsets}; catch-up {catch_up} s",
        flush=True,
    )
    for line in [run.broken, *run.faults_found] if not run.ok else []:
        print(f"    {line}", flush=True)


def merged(earlier: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    by_name = {(run.scenario, run.guarantee, run.seed): run for run in [*earlier, *runs]}
    return list(by_name.values())


def write(report: Path, earlier: Sequence[Run], runs: Sequence[Run]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps([asdict(run) for run in merged(earlier, runs)], indent=1, ensure_ascii=False))


def table(runs: Sequence[Run]) -> str:
    """A line per scenario, then all together."""
    rows: list[tuple[str, ...]] = [HEAD]
    for scenario in SCENARIOS:
        of = [run for run in runs if run.scenario == scenario.name]
        if of:
            rows.append(row(scenario.claim, of))
    rows.append(row("all", runs))
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in rows
    )


def row(title: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """Sums over the runs; a run that broke off is named after the runs."""
    broken = sum(bool(run.broken) for run in runs)
    repeated = {
        guarantee: str(sum(sum(run.repeated.values()) for run in runs if run.guarantee == guarantee))
        if any(run.guarantee == guarantee for run in runs)
        else "-"
        for guarantee in GUARANTEES
    }
    times = [took_s for run in runs for took_s in run.catch_up_s]
    return (
        title,
        f"{len(runs)} ({broken} broken)" if broken else str(len(runs)),
        str(sum(run.records for run in runs)),
        str(sum(sum(run.faults.values()) for run in runs)),
        str(sum(run.lost for run in runs)),
        str(sum(run.ghost for run in runs)),
        str(sum(run.different + run.repeated_below_offsets for run in runs)),
        repeated["at_least_once"],
        repeated["exactly_once"],
        f"{statistics.median(times):.1f}, {max(times):.1f}" if times else "-",
    )


if __name__ == "__main__":
    sys.exit(main())
