"""The deadlines of a task's customers: the earliest in memory, the rest in the store."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush


class Timers:
    """One deadline a customer (epoch ms); a deadline is passed once the watermark is greater.

    `horizon_ms`: every stored deadline below it is in memory; None when all are. Memory wins over what is paged in, and
    a stored deadline that memory has overtaken does no harm: releasing a customer with nothing due changes nothing.

    Deadlines mostly move later, with each event of the customer; so a customer keeps its place in the heap until the
    place is reached, and moves on from there.
    """

    __slots__ = ("_heap", "_known", "_placed", "changed", "horizon_ms", "trimmed")

    def __init__(self, stored: Iterable[tuple[str, int]], *, complete: bool) -> None:
        self._placed: dict[str, int] = dict(stored)
        """Where each customer stands in the heap: never after its deadline."""
        self._known: dict[str, int | None] = dict(self._placed)
        self._heap = [(at, customer) for customer, at in self._placed.items()]
        heapify(self._heap)
        self.horizon_ms = None if complete else max((at for at, _ in self._heap), default=0)
        self.changed: dict[str, int | None] = {}
        """Set since the last cut; None: removed."""
        self.trimmed = 0
        """How often deadlines left memory: a page asked for before the last time may not tell of them."""

    def put(self, customer: str, deadline_ms: int | None) -> None:
        """Replace the deadline of a customer."""
        known = self._known
        if known.get(customer) == deadline_ms:
            return
        known[customer] = self.changed[customer] = deadline_ms
        if deadline_ms is not None and deadline_ms < self._placed.get(customer, deadline_ms + 1):
            self._place(deadline_ms, customer)

    def _place(self, at: int, customer: str) -> None:
        self._placed[customer] = at
        heappush(self._heap, (at, customer))
        if len(self._heap) > 4 * len(self._placed) + 1_000:
            self._heap = [(at, customer) for customer, at in self._placed.items()]
            heapify(self._heap)

    def page(self, stored: Iterable[tuple[str, int]], horizon_ms: int | None) -> None:
        """Take in stored deadlines of customers that memory knows nothing of; horizon_ms: as of now."""
        for customer, at in stored:
            if customer not in self._known:
                self._known[customer] = at
                self._place(at, customer)
        self.horizon_ms = horizon_ms

    def lacks(self, until_ms: int) -> bool:
        """Whether deadlines before a time may be in the store alone."""
        return self.horizon_ms is not None and self.horizon_ms < until_ms

    def first(self) -> int | None:
        """The earliest deadline in memory."""
        while self._heap:
            at, customer = self._heap[0]
            if self._known.get(customer) == at == self._placed.get(customer):
                return at
            self._reached(heappop(self._heap))
        return None

    def next_ms(self) -> int | None:
        """The time at which there may be something due: the earliest deadline in memory, or where memory ends."""
        earliest_ms, horizon_ms = self.first(), self.horizon_ms
        if earliest_ms is None or (horizon_ms is not None and horizon_ms < earliest_ms):
            return horizon_ms
        return earliest_ms

    def trim(self, most: int) -> None:
        """Where there are more, keep the earlier half of them and leave the others to the store, which has them."""
        if len(self._known) <= most:
            return
        stored = [
            (at, customer) for customer, at in self._known.items() if at is not None and customer not in self.changed
        ]
        dropped = sorted(stored)[most // 2 :]
        if not dropped:
            return
        self.trimmed += 1
        for _, customer in dropped:
            del self._known[customer]
            self._placed.pop(customer, None)
        self._heap = [(at, customer) for customer, at in self._placed.items()]
        heapify(self._heap)
        self.horizon_ms = dropped[0][0] if self.horizon_ms is None else min(self.horizon_ms, dropped[0][0])

    def _reached(self, place: tuple[int, str]) -> bool:
        """Whether a place just left was that of a deadline; otherwise the customer moves on to its own."""
        at, customer = place
        if self._placed.get(customer) != at:
            return False
        del self._placed[customer]
        deadline_ms = self._known.get(customer)
        if deadline_ms is not None and deadline_ms != at:
            self._place(deadline_ms, customer)
        return deadline_ms == at

    def pop(self, watermark_ms: int) -> str | None:
        """Take out one customer whose deadline the watermark has passed; its new deadline must be put next."""
        while self._heap and self._heap[0][0] < watermark_ms:
            place = heappop(self._heap)
            if self._reached(place):
                customer = place[1]
                self._known[customer] = self.changed[customer] = None
                return customer
        return None

    def due(self, watermark_ms: int) -> set[str]:
        """Customers in memory whose deadline the watermark may have passed, left in place; never one too few."""
        heap, found, todo = self._heap, set(), [0]
        size = len(heap)
        while todo:
            at = todo.pop()
            if at < size and heap[at][0] < watermark_ms:
                deadline_ms = self._known.get(heap[at][1])
                if deadline_ms is not None and deadline_ms < watermark_ms:
                    found.add(heap[at][1])
                todo += (2 * at + 1, 2 * at + 2)
        return found

    def cut(self) -> dict[str, int | None]:
        """Hand over what changed since the last cut."""
        changed, self.changed = self.changed, {}
        return changed

    def confirmed(self, cut: dict[str, int | None]) -> None:
        """Forget the removals that the store has applied."""
        for customer, deadline_ms in cut.items():
            if deadline_ms is None and self._known.get(customer, 0) is None and customer not in self.changed:
                del self._known[customer]
