"""Random schedules: one seed is one run. `make simulate SEEDS=1000` runs seeds 0 to 999, `SEEDS=7:8` seed 7.

A failing seed is printed with its faults, its schedule cut short, and how to run it again.
"""

import logging
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.driver import Simulation
from tests.simulation.process import CALLS
from tests.simulation.verdict import drain, faults_of
from tests.support.world import START_MS

FAULTS = (
    "crash",
    "reb",
    "notice",
    "release",
    "fail",
    "wipe",
    "lost",
    "late",
    "err",
    "half",
    "fatal",
    "refetch",
    "pause",
)
RATES = (0, 0, 0.005, 0.01, 0.03)
RARE = {"wipe": 0.1, "fatal": 0.3}
KINDS = (
    *("product_added",) * 8,
    *("order_completed",) * 3,
    *("page_viewed",) * 3,
    *("product_removed", "cart_updated", "cart_cleared", "checkout_started", "cart_viewed", "identity_linked"),
    *("order_cancelled", "order_refunded", "email_opened", "post_liked", "audience_counted"),
)
CHANNELS = ("cart", "cart", "clickstream", "email", "social")
PROGRESS_S = 10
EXACTLY_ONCE = 0.4
LATE_S = (3, 4, 6, 9, 30)


@dataclass(frozen=True)
class Setting:
    """What a seed decides before the first step."""

    plan: dict[str, Any]
    world: dict[str, Any]
    rates: dict[str, float]
    late: float
    customers: int
    steps: int
    zombie: float
    """How often the worker that lost the task is let do something."""
    relapse: float
    """Chance, at each step, of a failover back to the commit on which a zombie would write next."""
    lost_when_calm: int
    """Writes that a last failover loses when all is done; 0: none."""

    @classmethod
    def of(cls, rng: Random) -> "Setting":
        return cls(
            plan={
                "profiles_max": rng.choice((1, 2, 50_000)),
                "timers_page": rng.choice((1, 2, 10_000)),
                "dirty_customers_max": rng.choice((1, 3, 4_000)),
                "trigger_max_staleness_ms": rng.choice((0, 0, 0, 4_000)),
                "exactly_once": rng.random() < EXACTLY_ONCE,
            },
            world={
                "skew_s": rng.choice(((0, 0), (1, 0), (0, 1), (-1, 1), (1, -1))),
                "page": rng.choice((1, 2, 10_000)),
                "ordered": rng.random() < 0.8,
                "jumps": rng.random() < 0.6,
                "held": frozenset(rng.sample(CALLS, rng.choice((3, 6, 9, len(CALLS))))),
            },
            rates={fault: rng.choice(RATES) * RARE.get(fault, 1) for fault in FAULTS},
            late=rng.choice((0, 0, 0.15, 0.3)),
            customers=rng.choice((2, 3, 12)),
            steps=rng.choice((100, 200, 400)),
            zombie=rng.choice((0.1, 0.3, 0.5)),
            relapse=rng.choice((0, 0.05, 0.3)),
            lost_when_calm=rng.choice((0, 0, 0, 1, 2, 5)),
        )

    def simulation(self) -> Simulation:
        return Simulation(**self.world, **self.plan)


class Generator:
    """Picks the next label by looking at what is possible."""

    def __init__(self, rng: Random, setting: Setting, simulation: Simulation) -> None:
        self.rng, self.setting, self.simulation = rng, setting, simulation
        self.paused: set[str] = set()
        self.events = 0

    def step(self) -> None:
        """Do something."""
        if self._relapse():
            return
        draw = self.rng.random()
        for fault, rate in self.setting.rates.items():
            draw -= rate
            if draw < 0:
                self._fault(fault)
                return
        draw = self.rng.random()
        if draw < 0.06:
            self.simulation.do("tick")
        elif draw < 0.065:
            self.simulation.do(self.rng.choice(("jump:10", "jump:1900")))
        elif draw < 0.2:
            self._event()
        else:
            self._work()

    def _event(self) -> None:
        rng, simulation = self.rng, self.simulation
        draw = rng.random()
        if draw < 0.05:
            simulation.do(f"rubbish:{rng.choice(CHANNELS)}")
        elif draw < 0.12:
            channel = rng.choice(CHANNELS)
            size = len(simulation.broker.inputs[f"engagement.{channel}.v1", 0])
            simulation.do(f"again:{channel},{rng.randrange(size) if size else 0}")
        else:
            self.events += 1
            late = rng.random() < self.setting.late
            behind_s = rng.choice(LATE_S) if late else rng.choice((0, 0, 0, 1, 2, -1))
            at_s = (simulation.clock.now_ms - START_MS) // 1_000 - behind_s
            who = f"c{rng.randrange(self.setting.customers)},{at_s}.{self.events % 1_000:03d},{self.events}"
            if draw < 0.17:
                simulation.do(f"mail:{who}")
            else:
                simulation.do(f"send:{rng.choice(KINDS)},{who}")

    def _work(self) -> None:
        """A random possible step of a worker, rather of the owner."""
        rng, simulation = self.rng, self.simulation
        owner = simulation.workers[simulation.owner]
        if not owner.owns and not owner.doing("release"):
            simulation.do(f"reb:{rng.choice('AB')}")
        if self.paused and rng.random() < 0.1:
            self.paused.clear()
        names = [simulation.owner, "B" if simulation.owner == "A" else "A"]
        if rng.random() < self.setting.zombie:
            names.reverse()
        for name in names:
            if name in self.paused:
                continue
            options = [f"{name}.go:{here.name}" for here in simulation.workers[name].gates.waiting]
            options += [f"{name}.poll:{channel},{rng.choice((1, 2, 5))}" for channel in set_in_order(CHANNELS)]
            options += [f"{name}.tick", f"{name}.claim"]
            options += [f"net:{place}" for place in range(len(simulation.network.on_their_way))]
            rng.shuffle(options)
            if any(simulation.do(option) for option in options):
                return
        simulation.do(rng.choice(("tick", "net:0")))

    def _fault(self, fault: str) -> None:
        rng, simulation = self.rng, self.simulation
        name = rng.choice("AB")
        waiting = [here.name for here in simulation.workers[name].gates.waiting]
        if fault == "fail":
            simulation.do(f"fail:{self._kept()}")
        elif fault == "wipe":
            simulation.do("wipe")
        elif fault == "reb":
            simulation.do(f"reb:{name}")
        elif fault in ("lost", "late"):
            simulation.do(f"{fault}:{rng.randrange(3)}")
        elif fault == "err" and waiting:
            simulation.do(f"{name}.err:{rng.choice(waiting)}")
        elif fault == "fatal" and waiting:
            simulation.do(f"{name}.fatal:{rng.choice(waiting)}")
        elif fault == "refetch":
            simulation.do(f"{name}.refetch:{rng.choice(CHANNELS)}")
        elif fault == "pause":
            self.paused ^= {name}
        elif fault in ("crash", "notice", "release", "half"):
            simulation.do(f"{name}.{fault}")

    def _relapse(self) -> bool:
        """Let a zombie's next commit become valid again."""
        simulation = self.simulation
        zombie = simulation.workers["B" if simulation.owner == "A" else "A"]
        task = zombie.processor.tasks.get(0)
        if task is None or not task.moved or self.rng.random() > self.setting.relapse:
            return False
        vers = simulation.store.vers
        return task.ver in vers[:-1] and simulation.do(f"fail:{vers.index(task.ver) - 1}")

    def _kept(self) -> int:
        """How many writes survive a failover; half the time it goes back to the very commit that a worker holds."""
        store = self.simulation.store
        if self.rng.random() < 0.5:
            tasks = [worker.processor.tasks.get(0) for worker in self.simulation.workers.values()]
            held = {ver for task in tasks if task is not None for ver in task.vers()}
            places = [place for place, ver in enumerate(store.vers[:-1], 1) if ver in held]
            if places:
                return self.rng.choice(places) - 2
        return max(0, store.writes - 3 - int(self.rng.expovariate(0.5)))


def set_in_order(names: Iterable[str]) -> list[str]:
    """Each name once."""
    return list(dict.fromkeys(names))


def run(seed: int) -> tuple[dict[str, list[str]], Setting, list[str]]:
    """Run a seed; returns (faults, setting, labels done)."""
    rng = Random(seed)
    setting = Setting.of(rng)
    simulation = setting.simulation()
    generator = Generator(rng, setting, simulation)
    for _ in range(setting.steps):
        generator.step()
    done = simulation.done.copy()
    return judged(simulation, setting), setting, done


def replay(setting: Setting, labels: list[str]) -> dict[str, list[str]]:
    """Run a schedule under the setting of a seed."""
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


def shortened(setting: Setting, labels: list[str], kind: str) -> list[str]:
    """The schedule with every step left out that the fault does not need."""
    size = len(labels) // 2
    while size:
        at, dropped = 0, False
        while at < len(labels):
            rest = labels[:at] + labels[at + size :]
            if kind in replay(setting, rest):
                labels, dropped = rest, True
            else:
                at += size
        if not dropped or size > 1:
            size //= 2
    return labels


def report(seed: int, faults: dict[str, list[str]], setting: Setting, labels: list[str]) -> str:
    """A failing seed for people."""
    kind = next(iter(faults))
    short = shortened(setting, labels, kind) if kind in replay(setting, labels) else labels
    lines = [f"seed {seed}: {', '.join(faults)}", f"  setting: {setting.world} {setting.plan}"]
    if setting.lost_when_calm:
        lines.append(f"  after the schedule: heal, then a failover that loses {setting.lost_when_calm} writes")
    lines += [f"  {name}: {line[:600]}" for name, found in faults.items() for line in found[:4]]
    lines += [f"  schedule ({len(short)} of {len(labels)} steps):", f"    {' '.join(short)}"]
    return "\n".join([*lines, f"  again: make simulate SEEDS={seed}:{seed + 1}"])


def told(seed: int) -> str | None:
    """Run a seed; what to tell of it, None where all is well."""
    logging.disable(logging.CRITICAL)
    faults, setting, labels = run(seed)
    return report(seed, faults, setting, labels) if faults else None


def main(wanted: str) -> int:
    """Run the seeds on all processors; returns how many failed."""
    first, _, end = wanted.rpartition(":")
    seeds = range(int(first or 0), int(end))
    begun, failed, shown = time.monotonic(), 0, time.monotonic()
    with ProcessPoolExecutor() as pool:
        for done, text in enumerate(pool.map(told, seeds, chunksize=10), 1):
            if text is not None:
                failed += 1
                print(text, flush=True)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                print(f"... {done} of {len(seeds)} seeds, {failed} failed", flush=True)
    elapsed = time.monotonic() - begun
    rate = len(seeds) / elapsed
    print(f"{len(seeds)} seeds, {failed} failed, {elapsed:.0f} s, {rate:.1f} seeds a second", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) > 0)
