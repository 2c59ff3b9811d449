"""The world of a simulation: log, store, network, clocks and two worker processes, and what happens to them."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from contextvars import copy_context
from functools import lru_cache
from typing import Any, Self

from models.events import EVENT_TYPES
from streams.errors import LogUnavailable
from streams.processing.processor import Processor
from streams.transport.memory import MemoryBroker
from tests.simulation.events import SECOND_MS, TOPIC_OF, event
from tests.simulation.loop import PROCESS, Gates, StillLoop
from tests.simulation.process import (
    HELD_IN_SCHEDULES,
    IN_FLIGHT,
    Ordered,
    SkewedClock,
    Worker,
    simulated_plan,
)
from tests.simulation.wire import Network, Request, SimulatedLog, SimulatedStore
from tests.support.world import TRIGGERS, ManualClock

SESSION_MS = 10_000
WHILE_FROZEN = frozenset(("_wake_by", "_crash_by", "_go_by", "_err_by"))
"""What may happen to a frozen process; calls it has made go on without it."""


@lru_cache(4_096)
def understood(label: str) -> tuple[str, str, tuple[str, ...]]:
    """The worker a label speaks of ("": none), the method that does it, and its arguments."""
    head, _, rest = label.partition(":")
    args = tuple(rest.split(",")) if rest else ()
    return (head[0], f"_{head[2:].lower()}_by", args) if head[1:2] == "." else ("", f"_{head}", args)


class Stage:
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
        **plan: Any,
    ) -> None:
        self.loop = StillLoop()
        self.clock = ManualClock()
        self.plan = simulated_plan(**plan)
        self.log_skew_ms = 0
        self.broker = MemoryBroker(lambda: self.clock.now_ms + self.log_skew_ms)
        self.network = Network(self.broker)
        self.network.held = IN_FLIGHT
        self.store = SimulatedStore(page)
        self.by_steps, self.held = held is None, HELD_IN_SCHEDULES if held is None else held
        self.ordered, self.jumps = ordered, jumps
        self.skew_s = dict(zip("AB", skew_s, strict=True))
        self.tally: Counter[str] = Counter()
        self.owner = "A"
        self.late_within_lateness: list[str] = []
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
        worker = Worker(name, Processor(store=self.store, log=log, clock=clock, plan=self.plan), log, gates, clock)
        if self.by_steps:
            worker.processor.before_step = lambda step, _partition: gates.pass_(f"step {step}")
        worker.processor.on_fatal = worker.fatal.append
        return worker

    # ------------------------------------------------------------------ do

    def run(self, labels: list[str]) -> Self:
        """Do one label after the other."""
        for label in labels:
            self.do(label)
        return self

    def do(self, label: str) -> bool:
        """Do what a label says; False where it is not possible now."""
        name, method, args = understood(label)
        act = getattr(self, method)
        if name and self.workers[name].gates.frozen and method not in WHILE_FROZEN:
            return False
        if not (act(self.workers[name], *args) if name else act(*args)):
            return False
        self.loop.settle()
        for worker in list(self.workers.values()):
            if worker.fatal or "stop" in worker.busy:
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
        return self._jump("1")

    def _jump(self, seconds: str) -> bool:
        self.clock.advance(int(seconds) * SECOND_MS)
        self.loop.now_s += 1
        self._expire_session()
        return True

    def _expire_session(self) -> None:
        """Give the task of a worker that has been frozen for longer than its session to the other."""
        name, other = self.owner, "B" if self.owner == "A" else "A"
        gates = self.workers[name].gates
        slept_ms = self.clock.steady_ms - self.workers[name].frozen_ms
        if gates.frozen and slept_ms >= SESSION_MS and self._reb(other):
            self.tally["faults/paused beyond the session"] += 1

    def _clock(self, seconds: str) -> bool:
        """The log's clock is off by so much from now on, as that of another leader may be."""
        self.log_skew_ms = int(seconds) * SECOND_MS
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
        self.tally["faults/writes lost in failovers"] += lost
        return True

    def _wipe(self) -> bool:
        self.store.wipe()
        return True

    # ------------------------------------------------------------------ the group and the network

    def _reb(self, name: str) -> bool:
        worker = self.workers[name]
        # A member joins the group again only after it has given its tasks back.
        if worker.fatal or worker.gates.frozen or worker.doing("release"):
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

    # ------------------------------------------------------------------ processes

    def _lose_task(self, worker: Worker) -> None:
        """The transport closes the task: what is claimed is not claimed any more, what is in memory is forgotten."""
        worker.owns = False
        if worker.doing("claim"):
            worker.busy["claim"].cancel()
        self.loop.call_soon(worker.processor.forget, (0,))
        self.loop.settle()
        worker.runs.clear()

    def _freeze_by(self, worker: Worker) -> bool:
        """It is stopped, and goes on later as if no time had passed; its timers run on."""
        worker.gates.frozen, worker.frozen_ms = True, self.clock.steady_ms
        return True

    def _wake_by(self, worker: Worker) -> bool:
        if not worker.gates.frozen:
            return False
        self.loop.thaw(worker.gates)
        return True

    def _crash_by(self, worker: Worker) -> bool:
        self._count_crash(worker)
        worker.gates.kill()
        self.loop.thaw(worker.gates)
        self.loop.settle()
        fresh = self.workers[worker.name] = self._worker(worker.name)
        fresh.owns, fresh.log.generation = worker.owns, worker.log.generation
        if worker.name == self.owner:
            # The new process is a new member: what its predecessor has under way is refused.
            self.broker.generation[0] += 1
            fresh.log.generation[0] = self.broker.generation[0]
        return True

    def _count_crash(self, worker: Worker) -> None:
        """Note in the midst of which calls a process dies."""
        under_way = {request.kind for request in self.network.on_their_way if request.sender == worker.name}
        at = {here.name for here in worker.gates.waiting} | {f"{kind} under way" for kind in under_way}
        self.tally.update(f"crashes at/{name}" for name in at or {"rest"})
