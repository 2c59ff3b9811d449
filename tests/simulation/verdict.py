"""What must hold after everything healed: the state is the fold of the log, nothing is lost and nothing made up."""

from contextlib import suppress
from typing import Any

from streams.engagement.profile import Profile
from streams.processing.book import unpack_book
from streams.processing.processor import Processor
from streams.stores.memory import MemoryStore
from streams.transport.memory import MemoryBroker, MemoryLog
from tests.simulation.driver import Simulation
from tests.simulation.loop import StillLoop
from tests.simulation.process import CART_POLICY, STEPS
from tests.support.fold import FoldError, FoldRecord, Result, fold
from tests.support.judge import Outputs, compare
from tests.support.world import OUTCOMES, REJECTED, SCORES, TRIGGERS, ManualClock

ROUNDS_MAX = 400
IDLE_ROUNDS = 3
POLICY = {
    "lateness_ms": 2_000,
    "steps": STEPS,
    "cart_expiry_ms": CART_POLICY.cart_expiry_ms,
    "recovery_window_ms": CART_POLICY.recovery_window_ms,
}


def drain(simulation: Simulation) -> bool:
    """Heal and finish: nothing is held any more, the zombie learns of its loss, the owner works until all is done.

    True once nothing is left to read, to commit or to wait for. The clock jumps then where the simulation says so, and
    sessions end, too; else the task stays idle, for idleness may be what it is about.
    """
    world = simulation
    world.do("A.notice")
    world.do("B.notice")
    world.network.held = frozenset()
    for worker in world.workers.values():
        worker.gates.open()
        worker.log.may_punctuate = True
    while world.network.on_their_way:
        world.do("net:0")
    idle = 0
    for _ in range(ROUNDS_MAX):
        worked = _turn(world)
        idle = 0 if worked else idle + 1
        if idle > IDLE_ROUNDS:
            return True
        world.do("jump:1900" if world.jumps and not worked else "tick")
    return False


def _turn(world: Simulation) -> bool:
    """One turn of the owner; True while there is something to do before the clock jumps."""
    for worker in world.workers.values():
        worker.gates.open()
        worker.log.may_punctuate = True
    name = world.owner
    owner = world.workers[name]
    owner.owns = owner.owns or not owner.doing("release")
    worked = world.do(f"{name}.claim")
    for _ in range(20):
        worked |= world.do(f"{name}.cart")
    for channel in ("cart", "clickstream", "email", "social"):
        worked |= world.do(f"{name}.poll:{channel},50")
    world.do(f"{name}.tick")
    task = owner.processor.tasks.get(0)
    if task is None or task.moved:
        return True
    due = task.timers.first()
    return worked or (due is not None and due < world.clock.now_ms + 60_000)


def faults_of(simulation: Simulation) -> dict[str, list[str]]:
    """Kind of fault -> lines; empty where all that must hold holds. Ends the simulation."""
    finished = drain(simulation)
    found = {} if finished else {"no convergence": [waiting_for(simulation)]}
    found |= {
        "stopped": [repr(error) for error in simulation.stopped],
        "offences": [line for line in simulation.network.offences if simulation.ordered or "moved K" not in line],
        "late within lateness": simulation.late_within_lateness,
        "repeated": [f"{repeats(simulation)} outputs"] if simulation.plan.exactly_once and repeats(simulation) else [],
    }
    simulation.loop.shut()
    # A FoldError: the contract itself gives two decisions of this log one identity, so there is nothing to compare.
    with suppress(FoldError):
        found |= compared(simulation, folded(simulation.broker))
    found["differs from an undisturbed run"] = differences_of_state(simulation)
    return {kind: lines for kind, lines in found.items() if lines}


def waiting_for(simulation: Simulation) -> str:
    """Where it hangs."""
    return "; ".join(
        f"{name}: claim {worker.processor.claim_of(0)}, at {[here.name for here in worker.gates.waiting]}"
        for name, worker in simulation.workers.items()
    )


def repeats(simulation: Simulation) -> int:
    """How often a trigger, cancel, outcome or rejected record was published again."""
    seen = [
        (topic, dict(record.headers).get("ce_id"), record.value, tuple(record.headers) if topic == REJECTED else ())
        for topic in (TRIGGERS, OUTCOMES, REJECTED)
        for record in simulation.broker.outputs[topic]
    ]
    return len(seen) - len(set(seen))


def folded(broker: MemoryBroker) -> Result:
    """The independent fold of the log."""
    return fold(inputs_of(broker), POLICY)


def inputs_of(broker: MemoryBroker) -> dict[tuple[str, int], list[FoldRecord]]:
    return {
        key: [FoldRecord(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log]
        for key, log in broker.inputs.items()
    }


def compared(simulation: Simulation, result: Result) -> dict[str, list[str]]:
    """The stored state and what was published, held against the fold."""
    broker, stored = simulation.broker, simulation.store._task(0)
    outputs = Outputs(
        *(
            {0: [FoldRecord(at, 0, r.key, r.value, r.headers) for at, r in enumerate(broker.outputs[topic])]}
            for topic in (TRIGGERS, OUTCOMES, REJECTED, SCORES)
        )
    )
    model = simulation.plan.rules.score_model
    views = {
        customer: Profile.unpack(customer, hot, stored.cold.get(customer)).view(model)
        for customer, hot in stored.hot.items()
    }
    book = unpack_book(stored.main["meta"]) if stored.main else None
    account = {} if book is None else {(name, 0): entry.account() for name, entry in book.topics.items()}
    wanted = {key: counts for key, counts in account.items() if key in result.account or any(counts.values())}
    stale_allowed = simulation.plan.trigger_max_staleness_ms > 0
    verdict = compare(result, inputs_of(broker), outputs, views, account=wanted, stale_allowed=stale_allowed)
    found = verdict.faults
    # An order told twice may change what a score record says of the same revision, without calling for a new one. And
    # a zombie's last score may come after its successor's: it compares ver again only if it was held up for long.
    excused = {name for name, profile in result.profiles.items() if any(entry["repeats"] for entry in profile.history)}
    excused |= {(customer or b"").decode() for customer in simulation.network.overtaken}
    found["scores differ"] = [line for line in found["scores differ"] if line.split(":")[0] not in excused]
    return found


def differences_of_state(simulation: Simulation) -> list[str]:
    """Fields of the stored task that one undisturbed worker would have written otherwise, byte for byte."""
    got, want = contents(simulation.store), contents(undisturbed(simulation))
    return [
        f"{part}.{name}: want {want[part].get(name)!r}, got {got[part].get(name)!r}"
        for part in want
        for name in sorted({*want[part], *got[part]})
        if want[part].get(name) != got[part].get(name)
    ]


def contents(store: MemoryStore) -> dict[str, dict[str, Any]]:
    """Everything of the task that must not depend on what happened to the workers."""
    task = store._task(0)
    topics = unpack_book(task.main["meta"]).topics if task.main else {}
    book = {
        f"{name}.{field}": getattr(topics[name], field) for name in topics for field in topics[name].__struct_fields__
    }
    return {
        "book": book,
        "hot": dict(task.hot),
        "cold": dict(task.cold),
        "timers": dict(task.timers),
        "sessions": dict(task.sessions),
        "accumulators": {name: value for name, value in task.accumulators.items() if value},
    }


def undisturbed(simulation: Simulation) -> MemoryStore:
    """The store after one worker read the same log at leisure."""
    loop, store = StillLoop(), MemoryStore()
    broker = MemoryBroker(simulation.clock.wall_ms)
    broker.inputs = simulation.broker.inputs
    topics = list(simulation.plan.inputs)
    processor = Processor(store=store, log=MemoryLog(broker, topics), clock=ManualClock(), plan=simulation.plan)

    async def read_all() -> None:
        await processor.claim(0)
        for topic in topics:
            run = broker.fetch(topic, 0, 0, 1_000_000, processor.claim_of(0) or "")
            if run.records:
                await processor.apply(run)
        await processor.tick(0)
        await processor.stop()

    reading = loop.create_task(read_all())
    loop.settle()
    reading.result()
    loop.shut()
    return store
