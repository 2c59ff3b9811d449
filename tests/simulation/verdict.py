"""What must hold after everything healed: the state is the fold of the log, nothing is lost and nothing made up."""

from collections import Counter
from typing import Any

from streams.engagement.accumulators import Key
from streams.engagement.profile import Profile
from streams.processing.book import unpack_book
from streams.processing.processor import Processor
from streams.stores.memory import MemoryStore
from streams.transport.memory import MemoryBroker, MemoryLog
from tests.simulation.driver import Simulation
from tests.simulation.loop import StillLoop
from tests.simulation.process import CART_POLICY, STEPS
from tests.support.fold import FoldRecord, Result, fold
from tests.support.judge import CONNECT, Outputs, Verdict, compare, stale_id
from tests.support.totals import disagreements, summed, totals_of
from tests.support.world import OUTCOMES, REJECTED, SCORES, TRIGGERS, ManualClock

ROUNDS_MAX = 400
IDLE_ROUNDS = 3
UNHURRIED_ROUNDS = 4
ACTIVE_IN_ANY_ORDER_MS = 40 * 3_600_000
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
    for label in ("A.wake", "B.wake", "A.notice", "B.notice", "clock:0", "A.clock:0", "B.clock:0"):
        world.do(label)
    world.network.held = frozenset()
    for worker in world.workers.values():
        worker.gates.open()
        worker.log.may_punctuate = True
    while world.network.on_their_way:
        world.do("net:0")
    idle = 0
    for number in range(ROUNDS_MAX):
        worked = _turn(world)
        idle = 0 if worked else idle + 1
        if idle > IDLE_ROUNDS and not _unread(world):
            return True
        world.do("jump:1900" if world.jumps and not worked else "tick" if number < UNHURRIED_ROUNDS else "jump:5")
    return False


def _unread(world: Simulation) -> bool:
    """Whether the last turn wrote a punctuation that nobody has read."""
    task = world.workers[world.owner].processor.tasks.get(0)
    topics = {} if task is None else task.book.topics
    return any(book.position < world.broker.end(name, 0) for name, book in topics.items())


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
        if not world.do(f"{name}.cart"):
            break
        worked = True
    for channel in ("cart", "clickstream", "email", "social"):
        worked |= world.do(f"{name}.poll:{channel},50")
    world.do(f"{name}.tick")
    task = owner.processor.tasks.get(0)
    if task is None or task.moved:
        return True
    due = task.timers.next_ms()
    return worked or (due is not None and due < world.clock.now_ms + 60_000)


def faults_of(simulation: Simulation) -> dict[str, list[str]]:
    """Kind of fault -> lines; empty where all that must hold holds. Ends the simulation."""
    finished = drain(simulation)
    found = {} if finished else {"no convergence": [waiting_for(simulation)]}
    found |= {
        "stopped": [repr(error) for error in simulation.stopped],
        "offences": [line for line in simulation.network.offences if simulation.ordered or "moved K" not in line],
        "late within lateness": simulation.late_within_lateness,
    }
    simulation.loop.shut()
    result = folded(simulation.broker)
    found["published twice"] = published_twice(simulation, result) if simulation.plan.exactly_once else []
    found |= compared(simulation, result)
    found["differs from an undisturbed run"] = differences_of_state(simulation, wide_apart(result))
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


def published_twice(simulation: Simulation, result: Result) -> list[str]:
    """What was published again: an id of a decision, or the place of a rejected record.

    The fold itself may decide twice under one id: where an event of long ago was sent twice, beyond what is remembered.
    """
    times: Counter[tuple[str, ...]] = Counter()
    for topic in (TRIGGERS, OUTCOMES, REJECTED):
        names = ("ce_id",) if topic != REJECTED else (f"{CONNECT}topic", f"{CONNECT}offset")
        for record in simulation.broker.outputs[topic]:
            headers = dict(record.headers)
            times[topic, *(headers[name].decode() for name in names)] += 1
    allowed = {key: 1 + len(others) for key, others in result.collisions.items()}
    allowed |= {stale_id(result.triggers[key]): allowed[key] for key in result.collisions if key in result.triggers}
    return [f"{' '.join(what)} {number} times" for what, number in times.items() if number > allowed.get(what[-1], 1)]


def folded(broker: MemoryBroker) -> Result:
    """The independent fold of the log."""
    return fold(inputs_of(broker), POLICY, strict=False)


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
    totals, kept = totals_of(result.metrics, "engagement"), summed([stored.accumulators])
    if wide_apart(result):
        totals, kept = without_active(totals), without_active(kept)
    found["accumulators differ"] = disagreements(totals, kept)
    _count(simulation, result, verdict, stored)
    return found


def _count(simulation: Simulation, result: Result, verdict: Verdict, stored: Any) -> None:
    """Tell how much was held against the fold."""
    account = sum(map(Counter, result.account.values()), Counter())
    simulation.tally.update({f"records judged/{name}": number for name, number in account.items()})
    simulation.tally.update(f"rejected because/{reason}" for reason in result.rejected.values())
    simulation.tally.update(
        {
            "judged/triggers": len(result.triggers),
            "judged/outcomes": len(result.outcomes),
            "judged/customers": verdict.customers,
            "judged/metric accumulators": len(stored.accumulators),
            "judged/bytes of state": sum(map(len, (*stored.hot.values(), *stored.cold.values()))),
            "judged/runs exactly once": simulation.plan.exactly_once,
            "published/repeated with the same id": verdict.repeated_same_id,
            "published/records": sum(map(len, simulation.broker.outputs.values())),
        }
    )


def wide_apart(result: Result) -> set[str]:
    """Customers whose events lie further apart than the windows of active customers remember in any order."""
    found = set()
    for name, profile in result.profiles.items():
        times_ms = [entry["stated_ms"] for entry in profile.history]
        if max(times_ms) - min(times_ms) > ACTIVE_IN_ANY_ORDER_MS:
            found.add(name)
    return found


def without_active(totals: dict[Key, int]) -> dict[Key, int]:
    return {key: number for key, number in totals.items() if key.metric != "active_customers"}


def differences_of_state(simulation: Simulation, apart: set[str]) -> list[str]:
    """Fields of the stored task that one undisturbed worker would have written otherwise, byte for byte.

    apart: customers whose hot field may differ in when they were active, and so may the counts of active customers.
    """
    got, want = contents(simulation.store), contents(undisturbed(simulation))
    return [
        f"{part}.{name}: want {want[part].get(name)!r}, got {got[part].get(name)!r}"
        for part in want
        for name in sorted({*want[part], *got[part]})
        if want[part].get(name) != got[part].get(name)
        and not (part == "hot" and name in apart)
        and not (part == "accumulators" and apart and name.startswith("active_customers"))
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
