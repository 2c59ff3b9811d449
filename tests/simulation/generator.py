"""What a seed decides: the plan, the clocks and the rates of faults of a run, and then one label after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self, TypeVar

from tests.simulation.driver import Simulation
from tests.simulation.events import TOPIC_OF
from tests.simulation.process import CALLS, Worker
from tests.support.world import START_MS

T = TypeVar("T")
FAULTS = (
    *("crash", "reb", "notice", "release", "fail", "wipe", "lost", "late", "err", "half", "fatal", "refetch", "pause"),
    *("freeze", "clock", "skew"),
)
RATES = (0, 0, 0.005, 0.01, 0.03)
RARE = {"wipe": 0.1, "fatal": 0.3, "clock": 0.3, "skew": 0.3}
KINDS = (
    *("product_added",) * 8,
    *("order_completed",) * 3,
    *("page_viewed",) * 3,
    *("product_removed", "cart_updated", "cart_cleared", "checkout_started", "cart_viewed", "identity_linked"),
    *("order_cancelled", "order_refunded", "email_opened", "post_liked", "audience_counted"),
)
CHANNELS = ("cart", "cart", "clickstream", "email", "social")
TIMELESS = ("product_added", "cart_viewed", "page_viewed", "email_opened", "post_liked")
"""Types whose late ones mean nothing to earlier ones that are no longer known: no orders, no removals."""
HOUR_S, DAY_S = 3_600, 86_400
WITHIN_S = (0, 0, 0, 1, 2, -1)
"""How long before now an event occurred: within the lateness."""
LATE_S = (3, 4, 6, 9, 30)
ODD_S = (-30, -290, -310, -2 * DAY_S, 600, 7_200, 30 * HOUR_S, 45 * HOUR_S, 40 * DAY_S, 399 * DAY_S, 401 * DAY_S)
"""Clocks that are ahead, or events that were found later: on both sides of what the contract accepts."""
CLOCKS_S = (-400, -30, -3, 3, 30, 400)


Plainer = Callable[["Setting"], "Setting"]


@dataclass(frozen=True)
class Setting:
    """What a seed decides before the first step."""

    plan: dict[str, Any]
    world: dict[str, Any]
    rates: dict[str, float]
    late: float
    odd: float
    customers: int
    steps: int
    zombie: float
    """How often the worker that lost the task is let do something."""
    relapse: float
    """Chance, at each step, of a failover back to the commit on which a zombie would write next."""
    lost_when_calm: int
    """Writes that a last failover loses when all is done; 0: none."""

    @classmethod
    def of(cls, rng: Random) -> Self:
        return cls(
            plan={
                "profiles_max": rng.choice((1, 2, 50_000)),
                "timers_page": rng.choice((1, 2, 10_000)),
                "timers_max": rng.choice((1, 2, 4, 20_000)),
                "dirty_customers_max": rng.choice((1, 3, 4_000)),
                "trigger_max_staleness_ms": rng.choice((0, 0, 0, 4_000)),
                "exactly_once": rng.random() < 0.4,
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
            odd=rng.choice((0, 0, 0.05)),
            customers=rng.choice((2, 3, 12)),
            steps=rng.choice((100, 200, 400)),
            zombie=rng.choice((0.1, 0.3, 0.5)),
            relapse=rng.choice((0, 0.05, 0.3)),
            lost_when_calm=rng.choice((0, 0, 0, 1, 2, 5)),
        )

    def simulation(self) -> Simulation:
        return Simulation(**self.world, **self.plan)


def _plan(name: str, value: Any) -> Plainer:
    return lambda setting: replace(setting, plan=setting.plan | {name: value})


def _world(name: str, value: Any) -> Plainer:
    return lambda setting: replace(setting, world=setting.world | {name: value})


def _not_held(call: str) -> Plainer:
    return lambda setting: replace(setting, world=setting.world | {"held": setting.world["held"] - {call}})


PLAINER: list[Plainer] = [
    lambda setting: replace(setting, lost_when_calm=0),
    _plan("exactly_once", False),
    _plan("profiles_max", 50_000),
    _plan("timers_page", 10_000),
    _plan("timers_max", 20_000),
    _plan("dirty_customers_max", 4_000),
    _plan("trigger_max_staleness_ms", 0),
    _world("skew_s", (0, 0)),
    _world("page", 10_000),
    _world("ordered", True),
    _world("jumps", False),
    *(_not_held(call) for call in CALLS),
]
"""Each takes one thing out of the ordinary away, so that a schedule may be tried without it."""


class Generator:
    """Picks the next label by looking at what is possible."""

    def __init__(self, rng: Random, setting: Setting, simulation: Simulation) -> None:
        self.rng, self.setting, self.simulation = rng, setting, simulation
        self.random = rng.random
        self.rates = [(fault, rate) for fault, rate in setting.rates.items() if rate]
        self.any_fault = sum(rate for _, rate in self.rates)
        self.paused: set[str] = set()
        self.events = 0

    def pick(self, values: Sequence[T]) -> T:
        """One of them; `Random.choice` costs four times as much."""
        return values[int(self.random() * len(values))]

    def step(self) -> None:
        """Do something."""
        if self._relapse():
            return
        draw = self.random()
        if draw < self.any_fault:
            rest = (fault for fault, rate in self.rates if (draw := draw - rate) < 0)
            self._do_fault(next(rest, self.rates[-1][0]))
            return
        draw = self.random()
        if draw < 0.06:
            self.simulation.do("tick")
        elif draw < 0.065:
            self.simulation.do(self.pick(("jump:10", "jump:1900")))
        elif draw < 0.2:
            self._event()
        else:
            self._work()

    # ------------------------------------------------------------------ the world

    def _event(self) -> None:
        simulation, draw = self.simulation, self.random()
        if draw < 0.05:
            simulation.do(f"rubbish:{self.pick(CHANNELS)}")
        elif draw < 0.12:
            channel = self.pick(CHANNELS)
            size = len(simulation.broker.inputs[TOPIC_OF[channel], 0])
            simulation.do(f"again:{channel},{int(self.random() * size)}")
        else:
            self.events += 1
            behind_s = self._behind_s()
            at_s = (simulation.clock.now_ms - START_MS) // 1_000 - behind_s
            who = f"c{int(self.random() * self.setting.customers)},{at_s}.{self.events % 1_000:03d},{self.events}"
            if draw < 0.17:
                simulation.do(f"mail:{who}")
            else:
                simulation.do(f"send:{self.pick(KINDS if behind_s < DAY_S else TIMELESS)},{who}")

    def _behind_s(self) -> int:
        if self.random() < self.setting.odd:
            return self.pick(ODD_S)
        return self.pick(LATE_S if self.random() < self.setting.late else WITHIN_S)

    def _work(self) -> None:
        """A random possible step of a worker, rather of the owner."""
        simulation = self.simulation
        owner = simulation.workers[simulation.owner]
        if not owner.owns and not owner.doing("release"):
            simulation.do(f"reb:{self.pick('AB')}")
        if self.paused and self.random() < 0.1:
            self.paused.clear()
        names = ["A", "B"] if simulation.owner == "A" else ["B", "A"]
        if self.random() < self.setting.zombie:
            names.reverse()
        for name in names:
            if name in self.paused:
                continue
            options = [(self.random(), option) for option in self._options(simulation.workers[name])]
            options.sort()
            if any(simulation.do(option) for _, option in options):
                return
        simulation.do(self.pick(("tick", "net:0")))

    def _options(self, worker: Worker) -> list[str]:
        """What a worker might do next; a little of it may turn out to be impossible."""
        name, gates, network = worker.name, worker.gates, self.simulation.network
        options = [f"{name}.go:{here.name}" for here in gates.waiting]
        options += [f"net:{place}" for place in range(len(network.on_their_way))]
        if gates.frozen:
            return [*options, f"{name}.wake"]
        if worker.processor.claim_of(0) is None:
            return [*options, f"{name}.claim"]
        broker = self.simulation.broker
        for channel, topic in TOPIC_OF.items():
            if worker.fetch_from.get(topic, 0) < broker.end(topic, 0):
                options.append(f"{name}.poll:{channel},{self.pick((1, 2, 5))}")
        return [*options, f"{name}.tick"]

    # ------------------------------------------------------------------ faults

    def _do_fault(self, fault: str) -> None:
        label = getattr(self, f"_{fault}", lambda: f"{self.pick('AB')}.{fault}")()
        if label is not None:
            self.simulation.do(label)

    def _fail(self) -> str:
        return f"fail:{self._kept()}"

    def _wipe(self) -> str:
        return "wipe"

    def _reb(self) -> str:
        return f"reb:{self.pick('AB')}"

    def _crash(self) -> str:
        """Rather of a worker in the midst of something."""
        busy = [name for name, worker in self.simulation.workers.items() if worker.gates.waiting]
        busy += [request.sender for request in self.simulation.network.on_their_way]
        return f"{self.pick(busy if busy and self.random() < 0.8 else 'AB')}.crash"

    def _half(self) -> str | None:
        """Of whoever is about to publish."""
        at = {here.name: name for name, worker in self.simulation.workers.items() for here in worker.gates.waiting}
        return f"{at['publish']}.half" if "publish" in at else None

    def _lost(self) -> str:
        return f"lost:{self._under_way()}"

    def _late(self) -> str:
        return f"late:{self._under_way()}"

    def _under_way(self) -> int:
        return int(self.random() * len(self.simulation.network.on_their_way))

    def _err(self) -> str | None:
        return self._at_a_gate("err")

    def _fatal(self) -> str | None:
        return self._at_a_gate("fatal")

    def _at_a_gate(self, what: str) -> str | None:
        worker = self.simulation.workers[self.pick("AB")]
        waiting = worker.gates.waiting
        return f"{worker.name}.{what}:{self.pick(waiting).name}" if waiting else None

    def _refetch(self) -> str:
        return f"{self.pick('AB')}.refetch:{self.pick(CHANNELS)}"

    def _pause(self) -> None:
        """Nobody gets round to a worker for a while."""
        self.paused ^= {self.pick("AB")}

    def _freeze(self) -> str:
        """Half the time for longer than its session."""
        name = self.pick((self.simulation.owner, self.simulation.owner, "A", "B"))
        self.simulation.do(f"{name}.freeze")
        return self.pick(("tick", "jump:12"))

    def _clock(self) -> str:
        return f"clock:{self.pick((0, *CLOCKS_S))}"

    def _skew(self) -> str:
        return f"{self.pick('AB')}.clock:{self.pick((0, *CLOCKS_S))}"

    def _relapse(self) -> bool:
        """Let a zombie's next commit become valid again."""
        simulation = self.simulation
        zombie = simulation.workers["B" if simulation.owner == "A" else "A"]
        task = zombie.processor.tasks.get(0)
        if task is None or not task.moved or self.random() > self.setting.relapse:
            return False
        vers = simulation.store.vers
        return task.ver in vers[:-1] and simulation.do(f"fail:{vers.index(task.ver) - 1}")

    def _kept(self) -> int:
        """How many writes survive a failover; half the time it goes back to the very commit that a worker holds."""
        store = self.simulation.store
        if self.random() < 0.5:
            tasks = [worker.processor.tasks.get(0) for worker in self.simulation.workers.values()]
            held = {ver for task in tasks if task is not None for ver in task.vers()}
            places = [place for place, ver in enumerate(store.vers[:-1], 1) if ver in held]
            if places:
                return self.pick(places) - 2
        return max(0, store.writes - 3 - int(self.rng.expovariate(0.5)))
