"""Two workers of one task, the real processor in each, driven through a schedule one step at a time.

A schedule is a list of labels, so every run can be written down, repeated and cut short. Times in labels are seconds
since the beginning; `c1` is a customer. A label whose step is not possible now does nothing.

The world:       tick | jump:S (seconds at once) | send:TYPE,c1,S,N (event N, occurred at S) | again:TOPIC,OFFSET (sent
                 twice) | mail:c1,S,N (a click on the mail of the latest trigger) | rubbish:TOPIC
The store:       fail:N (failover to the first N claims and commits) | wipe (everything is lost)
The group:       reb:B (B owns the task now; the other does not know) | net:K (the K-th request under way arrives)
                 | lost:K (it never does) | late:K (its sender gives up waiting for it)
A worker:        A.claim | A.cart, A.click (read one record) | A.poll:TOPIC,N | A.tick (a turn of the commit loop)
                 | A.cut A.rej A.exec A.pub A.koff (the steps of a commit) | A.hb (compare) | A.punct
                 | A.claimR A.claimK (claim up to the write, and from there) | A.crash | A.release (it hands the task
                 back) | A.notice (it learns that it lost it) | A.half (it publishes half of what it has to)
                 | A.refetch:TOPIC (it reads the last three records again)
A single call:   A.go:GATE | A.err:GATE (it fails) | A.fatal:GATE (it fails so that the worker stops)
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from models.events import EVENT_TYPES
from streams.errors import Fatal, LogUnavailable, Retriable, StoreUnavailable
from streams.processing.ports import Run
from streams.processing.processor import Processor
from streams.transport.memory import MemoryBroker
from tests.simulation.events import SECOND_MS, TOPIC_OF, event
from tests.simulation.loop import Gates, StillLoop
from tests.simulation.process import (
    COMMIT_STEPS,
    HELD_IN_SCHEDULES,
    IN_FLIGHT,
    LOG_CALLS,
    Ordered,
    SkewedClock,
    Worker,
    simulated_plan,
)
from tests.simulation.wire import PROCESS, Network, Request, SimulatedLog, SimulatedStore
from tests.support.world import CART, CLICK, TRIGGERS, ManualClock


class Simulation:
    """The world and its two workers. Everything happens in `do`, and after it everything waits.

    skew_s: how far the clocks of A and B are off. held: the calls to store and log that are held until `go`; without it
    the steps of commits and claims are, by their own labels. ordered: see SimulatedLog. jumps: whether the clock jumps
    in the end, so that sessions end, too.
    """

    def __init__(
        self,
        *,
        skew_s: tuple[int, int] = (0, 0),
        held: frozenset[str] | None = None,
        ordered: bool = True,
        jumps: bool = False,
        page: int = 10_000,
        processor: Callable[..., Processor] = Processor,
        **plan: Any,
    ) -> None:
        self.loop = StillLoop()
        self.clock = ManualClock()
        self.plan = simulated_plan(**plan)
        self.broker = MemoryBroker(self.clock.wall_ms)
        self.network = Network(self.broker)
        self.network.held = IN_FLIGHT
        self.store = SimulatedStore(page)
        self.by_steps, self.held = held is None, HELD_IN_SCHEDULES if held is None else held
        self.ordered, self.jumps, self.new_processor = ordered, jumps, processor
        self.skew_s = dict(zip("AB", skew_s, strict=True))
        self.owner = "A"
        self.late_within_lateness: list[str] = []
        self.claims_of_others = 0
        self.ambiguous = False
        """Whether the contract names two decisions of this log alike."""
        self.stopped: list[Exception] = []
        self.done: list[str] = []
        self.workers = {name: self._worker(name) for name in "AB"}
        self.workers["A"].owns = True

    def _worker(self, name: str) -> Worker:
        log = SimulatedLog(name, self.network, list(self.plan.inputs), ordered=self.ordered)
        log.generation[0] = self.broker.generation[0]
        clock = SkewedClock(self.clock, self.skew_s[name] * SECOND_MS)
        gates = Gates(self.held)
        log.may_punctuate = not self.by_steps
        worker = Worker(name, self.new_processor(store=self.store, log=log, clock=clock, plan=self.plan), log, gates)
        if self.by_steps:
            worker.processor.before_step = lambda step, _partition: gates.pass_(f"step {step}")
        worker.processor.on_fatal = worker.fatal.append
        return worker

    # ------------------------------------------------------------------ do

    def run(self, labels: list[str]) -> "Simulation":
        """Do one label after the other."""
        for label in labels:
            self.do(label)
        return self

    def do(self, label: str) -> bool:
        """Do what a label says; False where it is not possible now."""
        head, _, rest = label.partition(":")
        args = rest.split(",") if rest else []
        if head[1:2] == ".":
            possible = bool(getattr(self, f"_{head[2:].lower()}_by")(self.workers[head[0]], *args))
        else:
            possible = bool(getattr(self, f"_{head}")(*args))
        if not possible:
            return False
        self.loop.settle()
        for worker in list(self.workers.values()):
            self._mind(worker)
        self.done.append(label)
        return True

    def _mind(self, worker: Worker) -> None:
        """What the worker does by itself: a fatal error stops it in order, and another process takes its place."""
        if worker.fatal and "stop" not in worker.busy:
            self.stopped += [error for error in worker.fatal if not isinstance(error, Ordered)]
            worker.busy["stop"] = self._spawn(worker, self._stopping(worker))
            self.loop.settle()
        if "stop" in worker.busy and not worker.doing("stop"):
            self._crash_by(worker)

    async def _stopping(self, worker: Worker) -> None:
        if worker.doing("claim"):
            worker.busy["claim"].cancel()
        await worker.processor.release((0,), 5_000)
        await worker.processor.stop()

    def _spawn(self, worker: Worker, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a coroutine of a worker's process."""
        context = copy_context()
        context.run(PROCESS.set, worker.gates)
        return self.loop.create_task(what, context=context)

    # ------------------------------------------------------------------ the world

    def _tick(self) -> bool:
        self.clock.advance(SECOND_MS)
        self.loop.now_s += 1
        return True

    def _jump(self, seconds: str) -> bool:
        self.clock.advance(int(seconds) * SECOND_MS)
        self.loop.now_s += 1
        return True

    def _send(self, kind: str, customer: str, at_s: str, number: str) -> bool:
        topic = f"engagement.{EVENT_TYPES[kind].topic}"
        value = json.dumps(event(kind, customer, float(at_s), int(number))).encode()
        self.broker.append(topic, 0, customer.encode(), value)
        return True

    def _again(self, channel: str, offset: str) -> bool:
        log = self.broker.inputs[TOPIC_OF[channel], 0]
        if int(offset) >= len(log):
            return False
        record = log[int(offset)]
        self.broker.append(TOPIC_OF[channel], 0, record.key, record.value, record.headers)
        return True

    def _mail(self, customer: str, at_s: str, number: str) -> bool:
        triggers = [json.loads(record.value or b"{}") for record in self.broker.outputs[TRIGGERS]]
        sent = [trigger["trigger_id"] for trigger in triggers if trigger["action"] == "send"]
        if not sent:
            return False
        clicked = event("email_link_clicked", customer, float(at_s), int(number)) | {"trigger_id": sent[-1]}
        self.broker.append(TOPIC_OF["email"], 0, customer.encode(), json.dumps(clicked).encode())
        return True

    def _rubbish(self, channel: str) -> bool:
        self.broker.append(TOPIC_OF[channel], 0, b"c0", b"rubbish")
        return True

    def _fail(self, kept: str) -> bool:
        # The first two writes, the deployment and the log start, belong to no worker.
        lost = self.store.writes - int(kept) - 2
        if lost <= 0:
            return False
        self.store.fail_over(lost)
        return True

    def _wipe(self) -> bool:
        self.store.wipe()
        return True

    # ------------------------------------------------------------------ the group and the network

    def _reb(self, name: str) -> bool:
        worker = self.workers[name]
        if worker.fatal:
            return False
        self.broker.generation[0] += 1
        self.owner = name
        self._lose_task(worker)
        worker.log.generation[0] = self.broker.generation[0]
        worker.owns = True
        return True

    def _request(self, place: str) -> Request | None:
        under_way = self.network.on_their_way
        return under_way[int(place)] if int(place) < len(under_way) else None

    def _net(self, place: str) -> bool:
        request = self._request(place)
        if request is not None:
            self.network.deliver(request)
        return request is not None

    def _lost(self, place: str) -> bool:
        request = self._request(place)
        if request is not None:
            self.network.lose(request)
        return request is not None

    def _late(self, place: str) -> bool:
        request = self._request(place)
        if request is None or request.answer.done():
            return False
        request.reply(LogUnavailable(f"the {request.kind} was not answered in time"))
        return True

    # ------------------------------------------------------------------ a worker's life

    def _lose_task(self, worker: Worker) -> None:
        """The transport closes the task: what is claimed is not claimed any more, what is in memory is forgotten."""
        worker.owns = False
        if worker.doing("claim"):
            worker.busy["claim"].cancel()
        self.loop.call_soon(worker.processor.forget, (0,))
        self.loop.settle()
        worker.runs.clear()

    def _notice_by(self, worker: Worker) -> bool:
        if not worker.owns or worker.name == self.owner:
            return False
        self._lose_task(worker)
        return True

    def _crash_by(self, worker: Worker) -> bool:
        worker.gates.kill()
        self.loop.settle()
        fresh = self.workers[worker.name] = self._worker(worker.name)
        fresh.owns, fresh.log.generation = worker.owns, worker.log.generation
        if worker.name == self.owner:
            # The new process is a new member: what its predecessor has under way is refused.
            self.broker.generation[0] += 1
            fresh.log.generation[0] = self.broker.generation[0]
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
        self.claims_of_others += worker.name != self.owner
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
        run = self.broker.fetch(topic, 0, worker.fetch_from[topic], int(limit), claim)
        if not run.records:
            return False
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
