"""A failing schedule made short, and told step by step."""

from collections import Counter
from collections.abc import Callable, Iterator

from tests.simulation.driver import Simulation
from tests.simulation.generator import PLAINER, Setting

Fails = Callable[[Setting, list[str]], bool]


def shrunk(setting: Setting, labels: list[str], fails: Fails) -> tuple[Setting, list[str]]:
    """The schedule without the steps that the fault does not need, under the plainest setting in which it shows.

    Both as they are where the fault does not show again.
    """
    if not fails(setting, labels):
        return setting, labels
    steps = len(labels) + 1
    while len(labels) < steps:
        steps, labels = len(labels), _shortened(setting, labels, fails)
        for plainer in PLAINER:
            plain = plainer(setting)
            if plain != setting and fails(plain, labels):
                setting = plain
        labels = _shortened(setting, labels, fails)
    return setting, labels


def _shortened(setting: Setting, labels: list[str], fails: Fails) -> list[str]:
    size = max(1, len(labels) // 2)
    while size:
        at, dropped = 0, False
        while at < len(labels):
            rest = labels[:at] + labels[at + size :]
            if fails(setting, rest):
                labels, dropped = rest, True
            else:
                at += size
        if not dropped or size > 1:
            size //= 2
    return labels


def story(setting: Setting, labels: list[str]) -> Iterator[str]:
    """A line a step: its label, and what came of it in store, group and output topics."""
    simulation = setting.simulation()
    for number, label in enumerate(labels, 1):
        before = _Scene(simulation)
        simulation.do(label)
        yield f"{number:3} {label:<30} {'; '.join(_Scene(simulation).since(before))}".rstrip()
    simulation.loop.shut()


class _Scene:
    """What can be seen from outside."""

    def __init__(self, simulation: Simulation) -> None:
        self.effects = list(simulation.store.effects)
        self.group = {topic: offset for (topic, _), offset in simulation.broker.group.items()}
        self.outputs = Counter({topic: len(records) for topic, records in simulation.broker.outputs.items()})
        self.on_their_way = [f"{each.sender}'s {each.kind}" for each in simulation.network.on_their_way]
        self.waiting = {
            f"{name} at {here.name}" for name, worker in simulation.workers.items() for here in worker.gates.waiting
        }
        self.owner = simulation.owner

    def since(self, before: "_Scene") -> Iterator[str]:
        for what, *args in self.effects[len(before.effects) :]:
            yield f"{what} {' '.join(str(arg)[:4] for arg in args[-2:])}"
        yield from (
            f"K of {_short(topic)} is {at}" for topic, at in self.group.items() if before.group.get(topic) != at
        )
        yield from (f"{number} to {_short(topic)}" for topic, number in (self.outputs - before.outputs).items())
        if self.on_their_way != before.on_their_way and self.on_their_way:
            yield f"under way: {', '.join(self.on_their_way)}"
        if self.owner != before.owner:
            yield f"{self.owner} owns the task"
        yield from sorted(self.waiting - before.waiting)


def _short(topic: str) -> str:
    return topic.split(".")[1]
