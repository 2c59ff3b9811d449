"""What workers left on real brokers, held against the independent fold of the input log."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.fold import CHANNELS, FoldRecord, Result, TopicPartition, fold
from tests.support.judge import Outputs, Verdict, compare, read_topic
from tests.support.totals import disagreements, summed, totals_of
from tests.support.workers import Deployment


@dataclass(slots=True)
class Findings:
    """verdict: of state and outputs; metrics: lines where accumulators differ from the fold's totals."""

    verdict: Verdict
    inputs: Mapping[TopicPartition, Sequence[FoldRecord]]
    outputs: Outputs
    result: Result
    accumulators: int
    metrics: list[str]
    active_short: int
    """Hours in which fewer active customers were counted than there were; see `hold_against_fold`."""
    went_back: dict[str, int]
    """Customer -> partition, where the last score in the log is older than one before it."""

    @property
    def ok(self) -> bool:
        return self.verdict.ok and not self.metrics

    @property
    def different(self) -> list[str]:
        """Everything that is there and other than the fold has it: outputs, customers, accounts, accumulators."""
        told = {*self.verdict.missing, *self.verdict.invented}
        lines = [line for lines in self.verdict.faults.values() for line in lines]
        return [line for line in lines if line not in told] + self.metrics

    def text(self) -> str:
        outcomes = Counter(outcome["outcome"] for outcome in self.result.outcomes.values())
        account: Counter[str] = Counter()
        for counts in self.result.account.values():
            account.update(counts)
        lines = [
            self.verdict.text(),
            f"account {dict(account)}; {len(self.result.triggers)} triggers, outcomes {dict(outcomes)}",
            f"{self.accumulators} totals, {len(self.metrics)} differ",
            f"{self.active_short} counts of active customers short, {len(self.went_back)} scores went back",
            *self.metrics[:10],
        ]
        return "\n".join(lines)


def hold_against_fold(deployment: Deployment, policy: Mapping[str, Any], *, read_committed: bool = False) -> Findings:
    """Read the whole input log and all outputs, fold, compare. Stop the workers first.

    Who was active in which hour is told exactly only where a customer's topics are not read more than 40 hours apart,
    which nobody promises for history: these counts may be short, and never too high. Of scores the newest in the log is
    compared: what a frozen worker had handed to its producer comes out late, after what its successor published.
    """
    bootstrap, names = deployment.brokers.bootstrap, deployment.names
    inputs = {
        (topic, partition): log
        for topic in (names.topic(f"{channel}.v1") for channel in CHANNELS)
        for partition, log in read_topic(bootstrap, topic).items()
    }
    triggers, outcomes, rejected, scores = (
        read_topic(bootstrap, names.topic(f"{name}.v1"), read_committed=read_committed)
        for name in ("triggers", "outcomes", "rejected", "scores")
    )
    went_back = {customer: partition for partition, log in scores.items() for customer in _went_back(log)}
    newest = {partition: _newest(log) for partition, log in scores.items()}
    outputs = Outputs(triggers, outcomes, rejected, newest)
    result = fold(inputs, policy, strict=False)
    verdict = compare(result, inputs, outputs, deployment.read_customers(), account=deployment.read_account())
    wanted = totals_of(result.metrics, names.topic_prefix)
    got = summed(deployment.read_accumulators())
    short = [
        key
        for key, number in wanted.items()
        if key.metric == "active_customers" and key.level == "24h" and got.get(key, 0) < number
    ]
    for key in short:
        got[key] = wanted[key]
    differ = disagreements(wanted, got, max(result.watermarks.values()))
    return Findings(
        verdict=verdict,
        inputs=inputs,
        outputs=outputs,
        result=result,
        accumulators=len(got),
        metrics=differ,
        active_short=len(short),
        went_back=went_back,
    )


def _age(record: FoldRecord) -> tuple[int, int]:
    score = json.loads(record.value or b"")
    return score["rev"], score["as_of_ms"]


def _newest(log: Sequence[FoldRecord]) -> list[FoldRecord]:
    """The newest score of each customer; the later one of equals."""
    found: dict[bytes | None, FoldRecord] = {}
    for record in log:
        if record.key not in found or _age(record) >= _age(found[record.key]):
            found[record.key] = record
    return list(found.values())


def _went_back(log: Sequence[FoldRecord]) -> list[str]:
    last = {record.key: record for record in log}
    return [(record.key or b"").decode() for record in _newest(log) if _age(last[record.key]) < _age(record)]
