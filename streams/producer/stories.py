"""What simulated shoppers do: each story is one visit, told as events in the order in which they happen."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from models.outputs import trigger_id

TAKE_OVER_MS = 10 * 60_000
CURRENCIES = ("EUR", "EUR", "EUR", "PLN", "USD")
CAMPAIGNS = ("spring", "summer", "newsletter", "welcome")
NETWORKS = ("instagram", "facebook", "tiktok")
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


def browse(visit: Visit) -> None:
    """Look, and now and then meet an experiment, a tracked link, the application or the store."""
    look(visit)
    visit.pause(1, 20)
    extra = visit.rng.randrange(8)
    if extra == 0:
        visit.do("experiment_viewed", experiment_id="checkout-2", variant_id=visit.rng.choice("ab"))
    elif extra == 1:
        visit.do("link_clicked", link_id="banner", url="https://shop.example/sale")
    elif extra == 2:
        visit.do(visit.rng.choice(("application_installed", "application_opened", "application_uninstalled")))
    elif extra == 3:
        visit.do("store_entered", store_id="s-1")


def newsletter(visit: Visit) -> None:
    """A mail of the brand that is no trigger's."""
    visit.mail(clicks=visit.rng.random() < 0.5)
    if visit.rng.random() < 0.1:
        unwanted = ("email_unsubscribed", "email_marked_as_spam", "email_bounced")
        visit.do(visit.rng.choice(unwanted), campaign_id="newsletter")


def social(visit: Visit) -> None:
    """Likes, shares, comments, follows."""
    network = visit.rng.choice(NETWORKS)
    post: dict[str, Any] = {"network": network, "post_id": f"post-{visit.rng.randrange(20)}"}
    kinds = ("post_liked", "post_liked", "post_shared", "post_commented", "post_replied")
    for kind in visit.rng.sample(kinds, visit.rng.randint(1, 3)):
        visit.do(kind, sentiment=round(visit.rng.uniform(-1, 1), 2), **post)
        visit.pause(1, 20)
    if visit.rng.random() < 0.3:
        kinds = ("account_followed", "account_followed", "account_unfollowed", "brand_mentioned", "brand_tagged")
        visit.do(visit.rng.choice(kinds), network=network)


def audience(visit: Visit) -> None:
    """The followers of the brand's account are counted."""
    visit.customer_id = "@shop"
    visit.do("audience_counted", network=visit.rng.choice(NETWORKS), followers=10_000 + visit.rng.randrange(2_000))


def buy(visit: Visit) -> None:
    """Fill a cart and order it."""
    visit.fill()
    if visit.rng.random() < 0.7:
        visit.touch("checkout_started", checkout_url="https://shop.example/checkout", shipping_minor=490)
        visit.pause(2, 20)
        visit.touch("checkout_step_completed", step=1)
        visit.touch("payment_info_entered")
    visit.pause(2, 20)
    visit.order()


def cancel(visit: Visit) -> None:
    """Order, and let the brand cancel or refund it."""
    visit.fill()
    order = visit.order("cancelled_order").fields
    visit.pause(60, 600)
    kind = visit.rng.choice(("order_cancelled", "order_refunded"))
    visit.do(kind, order_id=order["order_id"], total_minor=order["total_minor"], currency=visit.currency)


def abandon(visit: Visit) -> None:
    """Fill a cart, perhaps begin the checkout, and leave."""
    visit.fill()
    if visit.rng.random() < 0.3:
        visit.touch("checkout_started", checkout_url="https://shop.example/checkout", shipping_minor=490)
    visit.acts[-1].label = "abandoned"


def recover(visit: Visit) -> None:
    """Leave a cart until its first step was due, click the mail about it, and order."""
    visit.fill()
    visit.after_step()
    visit.mail("clicked_trigger", trigger_id=visit.expected_trigger_id())
    visit.pause(5, 60)
    visit.order("recovered")


def return_unasked(visit: Visit) -> None:
    """Leave a cart until its first step was due, and order without having read any mail."""
    visit.fill()
    visit.after_step()
    visit.do("page_viewed", url="https://shop.example/")
    visit.pause(5, 60)
    visit.order("recovered")


def resume(visit: Visit) -> None:
    """Leave a cart until its first step was due, touch it again, and leave it again or order."""
    visit.fill()
    visit.after_step()
    visit.add("rearmed")
    if visit.rng.random() < 0.3:
        visit.pause(5, 60)
        visit.order()


def late_touch(visit: Visit) -> None:
    """Fill a cart; a part of what was done to it becomes known late."""
    visit.fill()
    visit.pause(1, 10)
    kind = visit.rng.randrange(5)
    if kind < 2:
        late = visit.add("late_cart_event")
    elif kind == 2:
        late = visit.do("product_removed", "late_cart_event", cart_id=visit.cart_id, product_id=next(iter(visit.lines)))
    elif kind == 3:
        late = visit.do("checkout_started", "late_cart_event", cart_id=visit.cart_id, shipping_minor=490)
    else:
        replaced = visit.rng.choice(CATALOGUE).line(1)
        late = visit.do(
            "cart_updated", "late_cart_event", cart_id=visit.cart_id, currency=visit.currency, items=[replaced]
        )
    late.late_ms = visit.late()
    if visit.rng.random() < 0.5:
        visit.before_step()
        visit.add()


def late_order(visit: Visit) -> None:
    """Order before any step is due; it becomes known late, often only after steps fired, or a new line was added."""
    visit.fill()
    visit.before_step()
    late = visit.order("late_order")
    late.late_ms = visit.late() + visit.rng.choice((0, visit.steps[0][1]))
    if visit.rng.random() < 0.3:
        visit.pause(5, 60)
        visit.add()


def take_over(visit: Visit) -> None:
    """Empty the cart on the way to the order, as some shops do."""
    visit.fill()
    visit.pause(1, 10)
    if visit.rng.random() < 0.5:
        visit.do("cart_cleared", cart_id=visit.cart_id)
    else:
        for product_id in visit.lines:
            visit.do("product_removed", cart_id=visit.cart_id, product_id=product_id)
    visit.at_ms += visit.rng.choice((TAKE_OVER_MS, TAKE_OVER_MS + 1, 1_000, 5_000, 20_000, 60_000))
    visit.order("taken_over")


def empty(visit: Visit) -> None:
    """Fill a cart and empty it."""
    visit.fill()
    visit.pause(5, 100)
    if visit.rng.random() < 0.5:
        visit.do("cart_cleared", "emptied", cart_id=visit.cart_id)
    else:
        visit.do("cart_updated", "emptied", cart_id=visit.cart_id, items=[])


def repeat_order(visit: Visit) -> None:
    """Order once and report it twice, with another total and perhaps an earlier time."""
    visit.fill()
    visit.pause(5, 60)
    first = visit.order().fields
    visit.pause(1, 300)
    again = visit.order("repeated_order", order_id=first["order_id"], total_minor=first["total_minor"] + 500)
    if visit.rng.random() < 0.5:
        again.at_ms = again.fields["occurred_at_ms"] = first["occurred_at_ms"] - visit.rng.randrange(1_000)
        again.late_ms = visit.at_ms - again.at_ms


def two_carts(visit: Visit) -> None:
    """Keep two carts and order one of them."""
    visit.fill()
    visit.cart_id = f"b-{visit.rng.getrandbits(32):08x}"
    visit.lines = {}
    visit.fill()
    visit.order()


def replace(visit: Visit) -> None:
    """Replace all lines at once, look at the cart, take something out."""
    visit.fill()
    chosen = visit.rng.sample(CATALOGUE, visit.rng.randint(1, 4))
    lines = [product.line(visit.rng.randint(1, 3)) for product in chosen]
    visit.touch("cart_updated", currency=visit.currency, items=lines)
    visit.pause(1, 20)
    visit.do("cart_viewed", cart_id=visit.cart_id)
    visit.touch("product_removed", product_id=lines[0]["product_id"], quantity=1)


def all_at_once(visit: Visit) -> None:
    """A touch, an order and perhaps a clear at the very same time."""
    visit.fill()
    visit.add()
    kinds = visit.rng.sample(("order", "clear", "touch"), 3)
    for kind in kinds:
        if kind == "order":
            visit.order("same_time")
        elif kind == "touch":
            visit.add()
        elif visit.rng.random() < 0.4:
            visit.do("cart_cleared", cart_id=visit.cart_id)


def log_in(visit: Visit) -> None:
    """Fill a cart as a visitor, log in, and go on as a known customer."""
    known = visit.customer_id
    visit.customer_id = f"v-{visit.rng.getrandbits(40):010x}"
    visit.fill()
    visit.do("identity_linked", "logged_in", to_customer_id=known)
    visit.customer_id = known
    visit.pause(0.5, 2)
    visit.add()
    visit.pause(5, 30)
    if visit.rng.random() < 0.5:
        visit.order()


Story = Callable[[Visit], None]

# A story about a cart waits until the shopper's one before has been told; the others may overlap with anything.
CART_STORIES: tuple[Story, ...] = (
    buy,
    cancel,
    abandon,
    recover,
    return_unasked,
    resume,
    late_touch,
    late_order,
    take_over,
    empty,
    repeat_order,
    two_carts,
    replace,
    all_at_once,
    log_in,
)
STORIES: dict[str, Story] = {story.__name__: story for story in (browse, newsletter, social, audience, *CART_STORIES)}
