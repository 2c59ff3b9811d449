"""Plays one scenario and judges what it left: against the independent fold of the log, and by every output topic."""

import json
import re
import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.ground import Ground, kafka_in, may_mount, small_disk
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Stage, guarantee_settings
from tests.support.brokers import Brokers, Names
from tests.support.exact import Findings, hold_against_fold
from tests.support.fold import fold
from tests.support.judge import read_topic

LINES_MAX = 20
CUSTOMERS_MAX = 3


@dataclass
class Run:
    """How one play of a scenario ended. repeated: kind of record -> how many had an id that was there before.

    `lost` to `different` are counts of records, customers, accounts and accumulators; `faults_found` tells them.
    """

    scenario: str
    guarantee: str
    seed: int
    records: int = 0
    rubbish: int = 0
    triggers: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    ghost: int = 0
    different: int = 0
    repeated: dict[str, int] = field(default_factory=dict)
    repeated_below_offsets: int = 0
    scores_went_back: int = 0
    """Customers whose newest score is not their last in the log: a reader has to compare `rev`."""
    catch_up_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    broken: str = ""
    """Why it could not be played to its end, if so."""
    faults_found: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    """Every record of the first customers that came out wrong, in the order of time."""
    repeats: dict[str, int] = field(default_factory=dict)
    """Partition and time of each repetition of a trigger, outcome or cancel, to 100 ms -> how many."""

    @property
    def ok(self) -> bool:
        wrong = self.lost + self.ghost + self.different + self.repeated_below_offsets
        repeated = sum(self.repeated.values()) if self.guarantee == "exactly_once" else 0
        return not (self.broken or wrong or repeated)

    def text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def play(scenario: Scenario, guarantee: str, seed: int, brokers: Brokers, *, keep: Path | None = None) -> Run:
    """Play it on these brokers; its logs go to the folder `keep`."""
    run, begun = Run(scenario.name, guarantee, seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pulseline-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        try:
            _play(run, scenario, brokers, folder, stack)
        except (Exception, pytest.fail.Exception) as problem:  # noqa: BLE001 - told in the table, the next one is played
            run.broken = f"{type(problem).__name__}: {problem}"[:3_000]
        run.seconds = round(time.monotonic() - begun, 1)
        if keep is not None:
            keep_logs(run, folder, keep)
    return run


def _play(run: Run, scenario: Scenario, brokers: Brokers, folder: Path, stack: ExitStack) -> None:
    disk_folder = folder / "disk"
    if scenario.needs:
        assert may_mount(), "this scenario needs root, to mount a small file system"
        disk = stack.enter_context(small_disk(disk_folder))
    if scenario.needs == "kafka on a disk":
        brokers = stack.enter_context(kafka_in(disk_folder / "stack"))
    ground = Ground(brokers, disk_folder if scenario.needs == "redis on a disk" else folder, stack)
    settings = guarantee_settings(run.guarantee)
    stage = Stage(ground, Names.fresh(), folder, stack, seed=run.seed, live=scenario.live, **settings)
    if scenario.needs:
        stage.disk = disk
    try:
        stage.open(scenario.workers)
        scenario.play(stage, scenario.rounds)
        stage.finish()
        surprises = stage.surprises()
        assert not surprises, f"{surprises}\n{stage.deployment.logs()}"
        judge(run, stage)
    finally:
        stage.halt()
        run.faults, run.catch_up_s = dict(stage.faults), [round(took_s, 2) for took_s in stage.catch_up_s]
        run.records, run.rubbish = stage.deployment.loaded.total(), stage.labels["dirty"]


def judge(run: Run, stage: Stage) -> None:
    """Hold what is there against the fold."""
    settings = stage.deployment.settings
    policy = {"lateness_ms": settings.lateness_ms, "steps": settings.cart_steps}
    findings = hold_against_fold(stage.deployment, policy, read_committed=run.guarantee == "exactly_once")
    verdict = findings.verdict
    run.triggers = len(findings.result.triggers)
    run.lost, run.ghost = len(verdict.missing), len(verdict.invented)
    run.different, run.scores_went_back = len(findings.different), len(findings.went_back)
    run.repeated = dict(+verdict.repeated)
    below = repeated_below_offsets(findings, stage, policy)
    run.repeated_below_offsets = len(below)
    run.faults_found = [*verdict.missing, *verdict.invented, *findings.different, *below][:LINES_MAX]
    run.evidence = evidence(run, findings, stage)
    run.repeats = repeats(findings)


def evidence(run: Run, findings: Findings, stage: Stage) -> list[str]:
    """What the logs hold of the customers that the faults name."""
    told = " ".join(run.faults_found)
    names = [customer for customer in findings.result.customers if re.search(rf"\b{re.escape(customer)}\b", told)]
    keys = {customer.encode() for customer in names[:CUSTOMERS_MAX]}
    logs = {(topic, partition): log for (topic, partition), log in findings.inputs.items()}
    for name in ("scores", "triggers", "outcomes", "rejected"):
        topic = stage.deployment.names.topic(f"{name}.v1")
        read = read_topic(stage.ground.bootstrap, topic)
        logs |= {(topic, partition): log for partition, log in read.items()}
    lines = [
        (
            record.timestamp,
            f"{record.timestamp} {topic}/{partition}@{record.offset} {(record.value or b'').decode()[:700]}",
        )
        for (topic, partition), log in logs.items()
        for record in log
        if record.key in keys
    ]
    return [line for _, line in sorted(lines)]


def repeats(findings: Findings) -> dict[str, int]:
    """When decisions were published again."""
    found: Counter[str] = Counter()
    for log in (findings.outputs.triggers, findings.outputs.outcomes):
        for partition, records in log.items():
            seen: set[bytes] = set()
            for record in records:
                ce_id = dict(record.headers)["ce_id"]
                if ce_id in seen:
                    moment = datetime.fromtimestamp(record.timestamp / 1_000, UTC).strftime("%H:%M:%S.%f")[:10]
                    found[f"task {partition} at {moment}"] += 1
                seen.add(ce_id)
    return dict(found)


def repeated_below_offsets(findings: Findings, stage: Stage, policy: dict[str, Any]) -> list[str]:
    """Triggers published again after a rebuild although the log below the committed offsets decided them."""
    found = []
    for committed, ends in stage.muted_below:
        below = {place: log[: committed.get(place, 0)] for place, log in findings.inputs.items()}
        decided = fold(below, policy, strict=False).triggers
        for partition, log in findings.outputs.triggers.items():
            for record in log:
                if record.offset >= ends[partition]:
                    trigger_id = json.loads(record.value or b"{}").get("trigger_id")
                    found += [f"trigger {trigger_id}: repeated below the committed offsets"] * (trigger_id in decided)
    return found


def keep_logs(run: Run, folder: Path, keep: Path) -> None:
    target = keep / f"{run.scenario}-{run.guarantee}-{run.seed}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for log in folder.rglob("*.log"):
        shutil.copy(log, target / log.name)
    (target / "run.json").write_text(json.dumps(asdict(run), indent=1, ensure_ascii=False))
