"""Two workers of one task, the real processor in each, driven through a schedule one step at a time.

A schedule is a list of labels, so every run can be written down, repeated and cut short. Times in labels are seconds
since the beginning; `c1` is a customer. A label whose step is not possible now does nothing.

The world:       tick | jump:S (seconds at once) | clock:S (the log's clock is off by S from now on)
                 | send:TYPE,c1,S,N (event N, occurred at S) | again:TOPIC,OFFSET (sent twice)
                 | mail:c1,S,N (a click on the mail of the latest trigger) | rubbish:TOPIC
The store:       fail:N (failover to the first N claims and commits) | wipe (everything is lost)
The group:       reb:B (B owns the task now; the other does not know) | net:K (the K-th request under way arrives)
                 | lost:K (it never does) | late:K (its sender gives up waiting for it)
A worker:        A.claim | A.cart, A.click (read one record) | A.poll:TOPIC,N | A.tick (a turn of the commit loop)
                 | A.cut A.rej A.exec A.pub A.koff (the steps of a commit) | A.hb (compare) | A.punct
                 | A.claimR A.claimK (claim up to the write, and from there) | A.crash | A.release (it hands the task
                 back) | A.notice (it learns that it lost it) | A.half (it publishes half of what it has to)
                 | A.refetch:TOPIC (it reads the last three records again) | A.freeze | A.wake (after 10 s the
                 other owns its task) | A.clock:S (its wall clock is off by S from now on)
A single call:   A.go:GATE | A.err:GATE (it fails) | A.fatal:GATE (it fails so that the worker stops)
"""

import json
from collections import deque

from streams.errors import Fatal, LogUnavailable, Retriable, StoreUnavailable
from streams.processing.ports import Run
from tests.simulation.events import TOPIC_OF
from tests.simulation.process import (
    COMMIT_STEPS,
    LOG_CALLS,
    Ordered,
    Worker,
)
from tests.simulation.stage import Stage
from tests.simulation.wire import Request
from tests.support.world import CART, CLICK


class Simulation(Stage):
    """The stage with all that its workers can be told to do; each label ends in a method `_<step>_by`."""

    # ------------------------------------------------------------------ a worker's life

    def _notice_by(self, worker: Worker) -> bool:
        if not worker.owns or worker.name == self.owner:
            return False
        self._lose_task(worker)
        return True

    def _release_by(self, worker: Worker) -> bool:
        """Give the task back in order: close it, commit what it holds, forget it."""
        if not worker.owns or worker.fatal or worker.doing("release"):
            return False
        if worker.doing("claim"):
            worker.busy["claim"].cancel()
        worker.owns = False
        worker.busy["release"] = self._spawn(worker, worker.processor.release((0,), 5_000))
        return True

    def _claim_by(self, worker: Worker) -> bool:
        claimed = worker.processor.claim_of(0) is not None
        if claimed or not worker.owns or worker.fatal or worker.doing("claim") or worker.doing("release"):
            return False
        worker.busy["claim"] = self._spawn(worker, self._claiming(worker))
        return True

    async def _claiming(self, worker: Worker) -> None:
        try:
            worker.fetch_from = await worker.processor.claim(0)
        except Retriable:
            return
        except Fatal as error:
            worker.fatal.append(error)

    def _claimr_by(self, worker: Worker) -> bool:
        before = list(self.network.on_their_way)
        self._claim_by(worker)
        self._deliver_claims(worker, before)
        return any(here.name == "claim reply" for here in worker.gates.waiting)

    def _claimk_by(self, worker: Worker) -> bool:
        before = list(self.network.on_their_way)
        possible = worker.gates.let("claim reply")
        self._deliver_claims(worker, before)
        return possible

    def _deliver_claims(self, worker: Worker, before: list[Request]) -> None:
        """Go on with a claim, whose own offset commits arrive at once; those before it stay under way."""
        self.loop.settle()
        while new := [request for request in self.network.on_their_way if request not in before]:
            self.network.deliver(new[0])
            self.loop.settle()

    # ------------------------------------------------------------------ reading

    def _cart_by(self, worker: Worker) -> bool:
        return self._read_one(worker, CART)

    def _click_by(self, worker: Worker) -> bool:
        return self._read_one(worker, CLICK)

    def _read_one(self, worker: Worker, topic: str) -> bool:
        """Read the next record; the first time the last one read comes along, to be compared."""
        task = worker.processor.tasks.get(0)
        if task is None:
            return False
        known = task.book.topics[topic].position - worker.fetch_from.get(topic, 0)
        return self._poll_by(worker, topic.split(".")[1], str(1 + max(0, known)))

    def _poll_by(self, worker: Worker, channel: str, limit: str) -> bool:
        topic, claim = TOPIC_OF[channel], worker.processor.claim_of(0)
        if claim is None or worker.doing("claim") or not worker.owns:
            return False
        if worker.fetch_from[topic] >= self.broker.end(topic, 0):
            return False
        run = self.broker.fetch(topic, 0, worker.fetch_from[topic], int(limit), claim)
        worker.fetch_from[topic] = run.records[-1].offset + 1
        worker.runs.setdefault(topic, deque()).append(run)
        if not worker.doing(topic):
            worker.busy[topic] = self._spawn(worker, self._agent(worker, topic))
        return True

    def _refetch_by(self, worker: Worker, channel: str) -> bool:
        """The transport hands in again what it handed in before."""
        topic = TOPIC_OF[channel]
        if worker.processor.claim_of(0) is None or topic not in worker.fetch_from:
            return False
        worker.fetch_from[topic] = max(0, worker.fetch_from[topic] - 3)
        return True

    async def _agent(self, worker: Worker, topic: str) -> None:
        """Feed the processor one run after the other, as the agent of a topic does."""
        while worker.runs.get(topic):
            run = worker.runs[topic].popleft()
            self._look_for_late(worker, run)
            try:
                await worker.processor.apply(run)
            except Exception as error:  # noqa: BLE001 - as the agent does
                worker.fatal.append(error)

    def _look_for_late(self, worker: Worker, run: Run) -> None:
        """An event within the lateness must not be late; known before it is read where runs are single records."""
        task = worker.processor.tasks.get(0)
        if task is None or run.topic != CART or not self.by_steps:
            return
        for record in run.records[-1:]:
            at_ms, watermark = json.loads(record.value).get("occurred_at_ms"), task.book.topics[CART].watermark_ms
            if at_ms is not None and at_ms < watermark and record.timestamp - at_ms <= self.plan.lateness_ms:
                self.late_within_lateness.append(f"offset {record.offset}")

    # ------------------------------------------------------------------ committing

    def _tick_by(self, worker: Worker) -> bool:
        """A turn of the commit loop begins: a cut where there is something to commit, else a comparison."""
        if worker.processor.claim_of(0) is None or worker.processor._committing[0].locked():
            return False
        worker.processor._wake[0].set()
        return True

    def _cut_by(self, worker: Worker) -> bool:
        task = worker.processor.tasks.get(0)
        return task is not None and task.moved and self._tick_by(worker)

    def _hb_by(self, worker: Worker) -> bool:
        task = worker.processor.tasks.get(0)
        return task is not None and not task.moved and self._tick_by(worker)

    def _rej_by(self, worker: Worker) -> bool:
        return worker.gates.let("step rejected")

    def _exec_by(self, worker: Worker) -> bool:
        return worker.gates.let("step exec")

    def _pub_by(self, worker: Worker) -> bool:
        return worker.gates.let("step publish")

    def _koff_by(self, worker: Worker) -> bool:
        return worker.gates.let("step offsets")

    def _punct_by(self, worker: Worker) -> bool:
        """A whole turn of the commit loop at the log end; the punctuation it may write stays under way."""
        if not self._tick_by(worker):
            return False
        worker.log.may_punctuate = True
        self.loop.settle()
        while worker.processor._committing[0].locked():
            for step in COMMIT_STEPS.values():
                worker.gates.let(f"step {step}")
                self.loop.settle()
            for request in [each for each in self.network.on_their_way if each.kind == "offsets"]:
                self.network.deliver(request)
            self.loop.settle()
        worker.log.may_punctuate = False
        return any(request.kind == "punctuation" for request in self.network.on_their_way)

    def _clock_by(self, worker: Worker, seconds: str) -> bool:
        """Its wall clock is set; what it counts time with goes on."""
        worker.clock.skew_ms = int(seconds) * 1_000
        return True

    # ------------------------------------------------------------------ single calls

    def _go_by(self, worker: Worker, gate: str) -> bool:
        return worker.gates.let(gate)

    def _err_by(self, worker: Worker, gate: str) -> bool:
        """The call fails: before it where the gate is its own, after it where it is its reply's."""
        name = gate.removesuffix(" reply")
        error = LogUnavailable if name in LOG_CALLS else StoreUnavailable
        return worker.gates.let(gate, error(f"{gate} failed as the schedule says"))

    def _half_by(self, worker: Worker) -> bool:
        if not any(here.name == "publish" for here in worker.gates.waiting):
            return False
        worker.log.fail_next.append("publish")
        return worker.gates.let("publish")

    def _fatal_by(self, worker: Worker, gate: str) -> bool:
        """The call fails with an error that stops the worker, in order."""
        return worker.gates.let(gate, Ordered(f"{gate} is refused for good, as the schedule says"))
