"""One shopper's visit while it is told: what is sold, what is in the cart, what time it is."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from models.outputs import trigger_id

CURRENCIES = ("EUR", "EUR", "EUR", "PLN", "USD")
CAMPAIGNS = ("spring", "summer", "newsletter", "welcome")
CATEGORIES = ("kitchen", "garden", "books", "toys", "sport")
NOUNS = ("mug", "teapot", "lamp", "spade", "novel", "atlas", "kite", "puzzle", "ball", "rope")


@dataclass(frozen=True, slots=True)
class Product:
    """Something the shop sells."""

    product_id: str
    name: str
    category: str
    unit_price_minor: int

    def line(self, quantity: int | None = None) -> dict[str, Any]:
        """The fields by which carts know it."""
        page = f"https://shop.example/p/{self.product_id}"
        return {
            "product_id": self.product_id,
            "name": self.name,
            "category": self.category,
            "unit_price_minor": self.unit_price_minor,
            "url": page,
            "image_url": f"{page}.jpg",
        } | ({} if quantity is None else {"quantity": quantity})


CATALOGUE = tuple(
    Product(f"p-{number}", f"{category} {noun}", category, 490 + 130 * ((number * 37) % 97))
    for number, (category, noun) in enumerate((category, noun) for category in CATEGORIES for noun in NOUNS)
)


@dataclass(slots=True)
class Act:
    """One event of a story: what happened when, and how much later than that it is sent (`late_ms`)."""

    at_ms: int
    fields: dict[str, Any]
    label: str
    late_ms: int = 0


@dataclass(slots=True)
class Visit:
    """One shopper's visit while it is told; `steps` are the abandonment steps, `pace` scales the pauses."""

    rng: Random
    customer_id: str
    at_ms: int
    steps: tuple[tuple[str, int], ...]
    lateness_ms: int
    pace: float
    source: str
    acts: list[Act] = field(default_factory=list)
    cart_id: str | None = None
    currency: str = "EUR"
    last_touch_ms: int = 0
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pause(self, least_s: float, most_s: float) -> None:
        """Let some seconds pass, at this visit's pace."""
        self.at_ms += round(self.rng.uniform(least_s, most_s) * 1_000 * self.pace)

    def after_step(self, number: int = 0) -> None:
        """Let the cart lie until a step was due, and somewhat longer, but not until the next one."""
        due_ms = self.last_touch_ms + self.steps[number][1]
        following = self.steps[number + 1][1] if number + 1 < len(self.steps) else 2 * self.steps[number][1]
        room_ms = following - self.steps[number][1]
        self.at_ms = due_ms + self.lateness_ms + round(room_ms * self.rng.uniform(0.15, 0.6))

    def before_step(self) -> None:
        """Let some time pass in which no step comes due."""
        self.at_ms += round(self.steps[0][1] * self.rng.uniform(0.1, 0.6))

    def do(self, type: str, label: str = "", *, late_ms: int = 0, at_ms: int | None = None, **fields: Any) -> Act:  # noqa: A002
        """Add an event at the present moment, or at `at_ms`."""
        event: dict[str, Any] = {
            "event_id": f"{self.rng.getrandbits(96):024x}",
            "type": type,
            "customer_id": self.customer_id,
            "occurred_at_ms": self.at_ms if at_ms is None else at_ms,
            "source": self.source,
        } | {name: value for name, value in fields.items() if value is not None}
        self.acts.append(Act(event["occurred_at_ms"], event, label, late_ms))
        return self.acts[-1]

    def touch(self, type: str, label: str = "", **fields: Any) -> Act:  # noqa: A002
        """Add a cart event of this visit's cart."""
        self.last_touch_ms = self.at_ms
        return self.do(type, label, cart_id=self.cart_id, **fields)

    def add(self, label: str = "") -> Act:
        """Put a product into the cart."""
        line = self.rng.choice(CATALOGUE).line(self.rng.choice((None, 1, 1, 2, 3)))
        self.lines[line["product_id"]] = line
        return self.touch("product_added", label, currency=self.currency, **line)

    def fill(self) -> None:
        """Look around and put one to three products into the cart."""
        look(self)
        for _ in range(self.rng.randint(1, 3)):
            self.add()
            self.pause(2, 20)

    def order(self, label: str = "", *, order_id: str | None = None, **fields: Any) -> Act:
        """Buy what is in the cart."""
        total = sum(line["unit_price_minor"] * line.get("quantity", 1) for line in self.lines.values())
        order: dict[str, Any] = {
            "order_id": order_id or f"o-{self.rng.getrandbits(48):012x}",
            "total_minor": total or 990,
            "currency": self.currency,
            "items": list(self.lines.values()) or None,
            "cart_id": self.cart_id,
        }
        return self.do("order_completed", label, **(order | fields))

    def late(self) -> int:
        """A delay after which an event comes too late to be in time, where its partition is not silent."""
        return self.lateness_ms * 2 + round(self.steps[0][1] * self.rng.uniform(0.1, 0.9))

    def mail(self, label: str = "", *, trigger_id: str | None = None, clicks: bool = True) -> None:
        """Receive a mail of the brand, open it and perhaps click in it."""
        mail: dict[str, Any] = {
            "email_id": f"m-{self.rng.getrandbits(48):012x}",
            "campaign_id": self.rng.choice(CAMPAIGNS),
            "variant_id": self.rng.choice("ab"),
            "trigger_id": trigger_id,
        }
        self.do("email_sent", **mail)
        self.pause(0.5, 3)
        self.do("email_delivered", **mail)
        if self.rng.random() < 0.2:
            self.do("email_opened", machine=True, **mail)
        self.pause(2, 30)
        self.do("email_opened", **mail)
        if clicks:
            self.pause(1, 10)
            self.do("email_link_clicked", label, url="https://shop.example/cart", **mail)

    def expected_trigger_id(self, number: int = 0) -> str:
        """The id that the trigger of the cart's step has, should it fire."""
        return trigger_id(self.customer_id, self.cart_id, self.last_touch_ms, self.steps[number][0])


def look(visit: Visit) -> None:
    """Pages, lists, searches and products."""
    visit.do("page_viewed", url="https://shop.example/", title="Home")
    for _ in range(visit.rng.randint(1, 4)):
        visit.pause(3, 40)
        product = visit.rng.choice(CATALOGUE)
        kind = visit.rng.randrange(5)
        if kind == 0:
            visit.do("products_searched", query=product.name)
        elif kind == 1:
            visit.do("product_list_viewed", category=product.category)
        elif kind == 2:
            visit.do("product_clicked", product_id=product.product_id, category=product.category)
        else:
            visit.do("product_viewed", product_id=product.product_id, category=product.category)
